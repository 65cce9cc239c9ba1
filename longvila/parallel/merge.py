"""Joining partial attention results by their log-sum-exp, in float32 (float64 for float64 inputs).

Sums in the inputs' half precision lose accuracy with every ring step, so nothing here ever rounds to it.
"""

# t queries, h query heads, D head size.

from __future__ import annotations

import torch
from torch import Tensor


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which partial results of ``dtype`` are added up."""
    return torch.promote_types(dtype, torch.float32)


def merge(out_thD: Tensor, lse_ht: Tensor, part_thD: Tensor, part_lse_ht: Tensor) -> None:
    """Join the attention over further keys into ``out`` and ``lse``, in place.

    Every query must have seen at least one key on both sides: an empty side has no lse.
    """
    weight_th1 = torch.sigmoid(part_lse_ht - lse_ht).transpose(0, 1)[..., None]
    out_thD.lerp_(part_thD.to(out_thD.dtype), weight_th1)
    torch.logaddexp(lse_ht, part_lse_ht, out=lse_ht)


def add_sinks(out_thD: Tensor, lse_ht: Tensor, sinks_h: Tensor) -> tuple[Tensor, Tensor]:
    """Give every head one more key with a learned score and no value; return the new (out, lse)."""
    sinks_h1 = sinks_h.to(lse_ht.dtype)[:, None]
    weight_th1 = torch.sigmoid(lse_ht - sinks_h1).transpose(0, 1)[..., None]
    return (out_thD * weight_th1).to(out_thD.dtype), torch.logaddexp(lse_ht, sinks_h1)


def sink_gradient(dout_thD: Tensor, out_thD: Tensor, lse_ht: Tensor, sinks_h: Tensor) -> Tensor:
    """Return the gradient of ``sinks_h``, where out and lse already include the sinks."""
    delta_th = (dout_thD * out_thD).sum(-1, dtype=lse_ht.dtype)
    weight_ht = torch.exp(sinks_h.to(lse_ht.dtype)[:, None] - lse_ht)
    return -(weight_ht * delta_th.transpose(0, 1)).sum(1).to(sinks_h.dtype)
