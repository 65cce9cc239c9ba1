"""Attention of new tokens over everything read so far, for one process.

New tokens see the held keys densely and each other causally. The two parts are joined by log-sum-exp, so no
mask of new × held tokens is ever made, however long the video is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longvila.errors import ConfigError
from longvila.parallel.heads import HeadPlan
from longvila.parallel.kernels import Kernel, Mask, pick_kernel
from longvila.parallel.merge import merge, sum_dtype
from longvila.parallel.regions import Kind

# B = 1 row, t new queries, keys and values of all tokens (as the model hands them on); H query heads, h KV
# heads, D head size.


def cached_attend(
    q_BHtD: Tensor,
    k_BhtD: Tensor,
    v_BhtD: Tensor,
    *,
    scale: float,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Return the attention output [1, t, H, D] of the last t of s tokens.

    Raises ConfigError for a sliding window that would leave tokens out, and for attention sinks.
    """
    num_new, num_all = q_BHtD.shape[2], k_BhtD.shape[2]
    _refuse(num_all, window, sinks)
    q, k, v = (tensor.transpose(1, 2) for tensor in (q_BHtD, k_BhtD, v_BhtD))
    kernel = pick_kernel(q, HeadPlan(q.shape[2], k.shape[2], 1).uniform(0))
    if num_new == 1:
        return kernel.forward(q, k, v, mask=Mask(Kind.DENSE), scale=scale)[0]
    held = num_all - num_new
    new_out, new_lse = kernel.forward(q, k[:, held:], v[:, held:], mask=Mask(Kind.CAUSAL), scale=scale)
    if not held:
        return new_out
    return _with_held(kernel, q, k[:, :held], v[:, :held], new_out, new_lse, scale=scale)


def _with_held(
    kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, new_out: Tensor, new_lse: Tensor, *, scale: float
) -> Tensor:
    """Join the attention over held keys to that over new ones; float32 sums, the queries' dtype comes out."""
    held_out, held_lse = kernel.forward(q, k, v, mask=Mask(Kind.DENSE), scale=scale)
    out_tHD = held_out[0].to(sum_dtype(q.dtype), copy=True)
    lse_Ht = held_lse[0].clone()
    merge(out_tHD, lse_Ht, new_out[0], new_lse[0])
    return out_tHD.to(q.dtype)[None]


def _refuse(num_all: int, window: int | None, sinks: Tensor | None) -> None:
    if window is not None and window < num_all:
        raise ConfigError(
            f"the LLM has a sliding window of {window} tokens, shorter than the {num_all} that were read. "
            "Inference keeps all keys; use an LLM without a sliding window, or fewer frames."
        )
    if sinks is not None:
        raise ConfigError("the LLM has attention sinks, which inference does not know. Use one without them.")


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is infinite or not a number."""
    return bool(torch.isfinite(tensor).all())
