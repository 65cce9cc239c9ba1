"""From tokens to heads and back: all ranks of a Ulysses group swap tokens for heads in one message.

Before, a rank holds all heads of its own tokens; after, all of the group's tokens for its own heads. The
ranks' slices follow one another in the row, so what arrives is already in order.
"""

# t tokens held by this rank, T tokens of the Ulysses group, H heads, h heads held here, D head size.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from longvila.parallel.comm import Group, Work
from longvila.parallel.heads import HeadPlan, HeadRange

Result = TypeVar("Result")


class Pending(Generic[Result]):
    """A result that is on its way."""

    def __init__(self, work: Work | None, finish: Callable[[], Result]) -> None:
        self._work = work
        self._finish = finish

    def wait(self) -> Result:
        """Return the result once it has arrived."""
        if self._work is not None:
            self._work.wait()
        return self._finish()


class Heads(NamedTuple):
    """Query, key and value heads of the same tokens."""

    q: Tensor
    k: Tensor
    v: Tensor


def scatter_heads(tokens: Heads, *, plan: HeadPlan, group: Group) -> Pending[Heads]:
    """Send every rank its heads of q_tHD, k_tHD and v_tHD, packed into one message per rank."""
    if group.size == 1:
        return Pending(None, lambda: tokens)
    cuts = [(q, kv, kv) for q, kv in zip(plan.q_ranges, plan.kv_ranges, strict=True)]
    own = plan.q_ranges[group.rank].size, plan.kv_ranges[group.rank].size
    buffer_ThD, work = _scatter(tokens, cuts, group)
    return Pending(work, lambda: Heads(*buffer_ThD.split([own[0], own[1], own[1]], dim=1)))


def scatter_queries(x_tHD: Tensor, *, plan: HeadPlan, group: Group) -> Pending[Tensor]:
    """Send every rank its query heads of ``x``, the gradient of attention's output."""
    if group.size == 1:
        return Pending(None, lambda: x_tHD)
    buffer_ThD, work = _scatter([x_tHD], [(q,) for q in plan.q_ranges], group)
    return Pending(work, lambda: buffer_ThD)


def gather_queries(x_ThD: Tensor, *, plan: HeadPlan, group: Group) -> Pending[Tensor]:
    """Return all query heads of the own tokens: the way back of scatter_queries."""
    if group.size == 1:
        return Pending(None, lambda: x_ThD)
    parts, work = _gather(x_ThD, [q.size for q in plan.q_ranges], group)
    return Pending(work, lambda: torch.cat(parts, dim=1))


def gather_gradients(grads: Heads, *, plan: HeadPlan, group: Group) -> Pending[Heads]:
    """Return the gradients of all heads of the own tokens: the way back of scatter_heads.

    What several ranks computed for a KV head that each of them had is added up, in float32 at least.
    """
    if group.size == 1:
        return Pending(None, lambda: grads)
    parts, work = _gather(torch.cat(grads, dim=1), plan.sizes, group)
    return Pending(work, lambda: _sum_gradients(parts, plan))


def _scatter(
    tensors: Sequence[Tensor], cuts: Sequence[tuple[HeadRange, ...]], group: Group
) -> tuple[Tensor, Work]:
    """Send rank i the heads ``cuts[i]`` (one range per tensor) of the own tokens."""
    num_tokens, _, head_size = tensors[0].shape
    sizes = [sum(heads.size for heads in ranges) for ranges in cuts]
    source = tensors[0].new_empty(num_tokens * sum(sizes), head_size)
    blocks = source.split([num_tokens * size for size in sizes])
    for block, ranges in zip(blocks, cuts, strict=True):
        parts = [x[:, heads.start : heads.stop] for x, heads in zip(tensors, ranges, strict=True)]
        torch.cat(parts, dim=1, out=block.view(num_tokens, -1, head_size))
    own = sizes[group.rank]
    output = source.new_empty(num_tokens * group.size * own, head_size)
    work = group.all_to_all(
        output,
        source,
        output_splits=[num_tokens * own] * group.size,
        source_splits=[num_tokens * size for size in sizes],
    )
    return output.view(-1, own, head_size), work


def _gather(x_ThD: Tensor, sizes: Sequence[int], group: Group) -> tuple[list[Tensor], Work]:
    """Send rank i its tokens of ``x``; return what comes back: the own tokens' heads, rank by rank."""
    num_tokens, own, head_size = len(x_ThD) // group.size, x_ThD.shape[1], x_ThD.shape[2]
    output = x_ThD.new_empty(num_tokens * sum(sizes), head_size)
    splits = [num_tokens * size for size in sizes]
    work = group.all_to_all(
        output,
        x_ThD.reshape(-1, head_size).contiguous(),
        output_splits=splits,
        source_splits=[num_tokens * own] * group.size,
    )
    return [part.view(num_tokens, -1, head_size) for part in output.split(splits)], work


def _sum_gradients(parts: Sequence[Tensor], plan: HeadPlan) -> Heads:
    """Join [dq | dk | dv] of every rank's heads into the gradients of all heads."""
    first = parts[0]
    shape = (len(first), plan.num_kv_heads, first.shape[2])
    dk, dv = (
        torch.zeros(shape, dtype=torch.promote_types(first.dtype, torch.float32), device=first.device)
        for _ in "kv"
    )
    queries = []
    for part, q, kv in zip(parts, plan.q_ranges, plan.kv_ranges, strict=True):
        dq_part, dk_part, dv_part = part.split([q.size, kv.size, kv.size], dim=1)
        queries.append(dq_part)
        dk[:, kv.start : kv.stop] += dk_part
        dv[:, kv.start : kv.stop] += dv_part
    return Heads(torch.cat(queries, dim=1), dk.to(first.dtype), dv.to(first.dtype))
