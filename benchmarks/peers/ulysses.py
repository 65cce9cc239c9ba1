"""Ulysses sequence parallelism as DeepSpeed's ALST and most others do it: heads for tokens, one by one.

q, k and v cross in an all-to-all each, and the output in a fourth; every message is waited for. KV heads that
are fewer than ranks are repeated before they are sent. Ranks hold contiguous shards. Written here so that a
single layer can be compared; DeepSpeed's own code runs end to end in ``alst.py``.
"""

# t tokens held by this rank, T tokens of the group, H heads, h heads held here, D head size.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longvila.parallel.comm import Group
from longvila.parallel.heads import UniformHeads
from longvila.parallel.kernels import Kernel, Mask, pick_kernel
from longvila.parallel.regions import Kind


def refusal(num_heads: int, num_kv_heads: int, degree: int) -> str | None:
    """Return why these heads cannot go over so many ranks, or nothing."""
    if num_heads % degree:
        return f"{num_heads} heads do not divide over {degree} ranks"
    if num_kv_heads % degree and degree % num_kv_heads:
        return f"{num_kv_heads} KV heads and {degree} ranks do not divide each other"
    return None


def positions_of(rank: int, num_ranks: int, num_tokens: int) -> np.ndarray:
    """Return the positions that a rank holds."""
    shard = num_tokens // num_ranks
    return np.arange(rank * shard, (rank + 1) * shard)


def repeat_kv(x_thD: Tensor, degree: int) -> Tensor:
    """Repeat KV heads until there is one for each rank."""
    return x_thD.repeat_interleave(max(degree // x_thD.shape[1], 1), dim=1)


def tokens_to_heads(x_tHD: Tensor, group: Group) -> Tensor:
    """Give every rank its share of the heads of all tokens; differentiable."""
    result: Any = _Swap.apply(x_tHD, group, True)
    return result


def heads_to_tokens(x_ThD: Tensor, group: Group) -> Tensor:
    """Give every rank all heads of its own tokens; differentiable."""
    result: Any = _Swap.apply(x_ThD, group, False)
    return result


class UlyssesAttention:
    """One layer: three all-to-alls, one kernel call per document, one all-to-all."""

    def __init__(self, lengths: Sequence[int], group: Group) -> None:
        self._lengths, self._group = tuple(lengths), group

    def __call__(self, q_BHtD: Tensor, k_BhtD: Tensor, v_BhtD: Tensor, *, scale: float) -> Tensor:
        """Return out_BtHD."""
        q, k, v = (x[0].transpose(0, 1) for x in (q_BHtD, k_BhtD, v_BhtD))
        k, v = (repeat_kv(x, self._group.size) for x in (k, v))
        q, k, v = (tokens_to_heads(x, self._group) for x in (q, k, v))
        out: Any = _Documents.apply(q, k, v, self._lengths, scale)
        return heads_to_tokens(out, self._group)[None]


def whole_kernel(q_ThD: Tensor, k_TgD: Tensor) -> Kernel:
    """Return the kernel that the library would take for these heads."""
    heads = UniformHeads(slice(0, q_ThD.shape[1]), slice(0, k_TgD.shape[1]))
    return pick_kernel(q_ThD, (heads,))


class _Swap(torch.autograd.Function):
    """Heads for tokens, or tokens for heads; each is the other's backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, to_heads: bool) -> Tensor:
        ctx.group, ctx.to_heads = group, to_heads
        return _scatter(x, group) if to_heads else _gather(x, group)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None, None]:
        return _gather(grad, ctx.group) if ctx.to_heads else _scatter(grad, ctx.group), None, None


def _scatter(x_tHD: Tensor, group: Group) -> Tensor:
    num_tokens, num_heads, head_size = x_tHD.shape
    if group.size == 1:
        return x_tHD
    own = num_heads // group.size
    source = x_tHD.reshape(num_tokens, group.size, own, head_size).transpose(0, 1).contiguous()
    return _even(source, group).view(num_tokens * group.size, own, head_size)


def _gather(x_ThD: Tensor, group: Group) -> Tensor:
    total, own, head_size = x_ThD.shape
    if group.size == 1:
        return x_ThD
    source = x_ThD.reshape(group.size, total // group.size, own, head_size).contiguous()
    return _even(source, group).transpose(0, 1).reshape(-1, group.size * own, head_size)


def _even(source: Tensor, group: Group) -> Tensor:
    """Send the i-th part of the first axis to rank i, and wait."""
    output = torch.empty_like(source)
    splits = [1] * group.size
    group.all_to_all(output, source, output_splits=splits, source_splits=splits).wait()
    return output


class _Documents(torch.autograd.Function):
    """Causal attention of every document of a row that is here as a whole."""

    @staticmethod
    def forward(
        ctx: Any, q_ThD: Tensor, k_TgD: Tensor, v_TgD: Tensor, lengths: Sequence[int], scale: float
    ) -> Tensor:
        kernel, mask = whole_kernel(q_ThD, k_TgD), Mask(Kind.CAUSAL)
        parts = [
            kernel.forward(q[None], k[None], v[None], mask=mask, scale=scale)
            for q, k, v in zip(*(x.split(lengths) for x in (q_ThD, k_TgD, v_TgD)), strict=True)
        ]
        out_ThD = torch.cat([out[0] for out, _ in parts])
        ctx.save_for_backward(q_ThD, k_TgD, v_TgD, out_ThD, *(lse for _, lse in parts))
        ctx.lengths, ctx.scale = lengths, scale
        return out_ThD

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout_ThD: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v, out, *lses = ctx.saved_tensors
        kernel, mask = whole_kernel(q, k), Mask(Kind.CAUSAL)
        cut = [x.split(ctx.lengths) for x in (dout_ThD, q, k, v, out)]
        grads = [
            kernel.backward(*[x[None] for x in document], lse=lse, mask=mask, scale=ctx.scale)
            for *document, lse in zip(*cut, lses, strict=True)
        ]
        dq, dk, dv = (torch.cat([part[0] for part in parts]) for parts in zip(*grads, strict=True))
        return dq, dk, dv, None, None
