"""The autograd function of attention over all ranks: tokens to heads, around the ring, and back.

It saves what lies between the two all-to-alls, as it is on this rank. Heads may go through in groups, one
group's messages on their way while another is computed.
"""

# t tokens held by this rank, T rows of a ring place between the two all-to-alls, H query heads, h KV heads,
# D head size.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longvila.parallel.blocks import Saved
from longvila.parallel.comm import Group
from longvila.parallel.heads import HeadPlan, HeadRange, head_group_ranges
from longvila.parallel.memory import Attended, recall, remember
from longvila.parallel.merge import add_sinks, sink_gradient
from longvila.parallel.ring import RingAttention
from longvila.parallel.ulysses import (
    Heads,
    Pending,
    gather_gradients,
    gather_queries,
    scatter_heads,
    scatter_queries,
)


@dataclass(frozen=True)
class Part:
    """Heads that go through together: which ones, their division over ranks, their way in the ring."""

    q: HeadRange
    kv: HeadRange
    heads: HeadPlan
    ring: RingAttention

    def scatter(self, tokens: Heads, group: Group) -> Pending[Heads]:
        """Start the way of this part's heads of q, k, v from tokens to heads."""
        kv = slice(self.kv.start, self.kv.stop)
        own = Heads(tokens.q[:, self.q.start : self.q.stop], tokens.k[:, kv], tokens.v[:, kv])
        return scatter_heads(own, plan=self.heads, group=group)

    def scatter_gradient(self, dout_tHD: Tensor, group: Group) -> Pending[Tensor]:
        """Start the way of this part's heads of the output's gradient."""
        return scatter_queries(dout_tHD[:, self.q.start : self.q.stop], plan=self.heads, group=group)

    def own_sinks(self, sinks_H: Tensor, group: Group) -> Tensor:
        """Return the sinks of this part's query heads held by this rank (a view)."""
        held = self.heads.q_ranges[group.rank]
        return sinks_H[self.q.start + held.start : self.q.start + held.stop]


class AttentionFunction(torch.autograd.Function):
    """q_tHD, k_thD, v_thD and the optional sinks_H -> out_tHD."""

    @staticmethod
    def forward(
        ctx: Any,
        q_tHD: Tensor,
        k_thD: Tensor,
        v_thD: Tensor,
        sinks_H: Tensor | None,
        parts: Sequence[Part],
        group: Group,
    ) -> Tensor:
        """Attend, part after part, the next part's messages under way."""
        tokens, saved, leaving = Heads(q_tHD, k_thD, v_thD), [], []
        arriving = parts[0].scatter(tokens, group)
        for i, part in enumerate(parts):
            heads = arriving.wait()
            if i + 1 < len(parts):
                arriving = parts[i + 1].scatter(tokens, group)
            out, lse = recall() or _attend_part(part, heads, sinks_H, group)
            leaving.append(gather_queries(out, plan=part.heads, group=group))
            saved += [*heads, out, lse]
        outs = [pending.wait() for pending in leaving]
        ctx.save_for_backward(sinks_H, *saved)
        ctx.parts, ctx.group = parts, group
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout_tHD: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k, v and the sinks; what the ring needs again travels again."""
        sinks_H, *saved = ctx.saved_tensors
        parts, group = ctx.parts, ctx.group
        dsinks_H = None if sinks_H is None else torch.zeros_like(sinks_H)
        arriving, leaving = parts[0].scatter_gradient(dout_tHD, group), []
        for i, part in enumerate(parts):
            dout = arriving.wait()
            if i + 1 < len(parts):
                arriving = parts[i + 1].scatter_gradient(dout_tHD, group)
            q, k, v, out, lse = saved[5 * i : 5 * i + 5]
            own = part.ring.backward(Saved(dout, q, out, lse), k, v)
            leaving.append(gather_gradients(Heads(*own), plan=part.heads, group=group))
            if sinks_H is not None and dsinks_H is not None:
                part.own_sinks(dsinks_H, group).copy_(
                    sink_gradient(dout, out, lse, part.own_sinks(sinks_H, group))
                )
        ended = [pending.wait() for pending in leaving]
        dq, dk, dv = (x[0] if len(x) == 1 else torch.cat(x, dim=1) for x in zip(*ended, strict=True))
        return dq, dk, dv, dsinks_H, None, None


def _attend_part(part: Part, heads: Heads, sinks_H: Tensor | None, group: Group) -> Attended:
    """Attend over the ring; give (out, lse) into keeping where a checkpoint asks for it."""
    out, lse = part.ring.forward(*heads)
    if sinks_H is not None:
        out, lse = add_sinks(out, lse, part.own_sinks(sinks_H, group))
    result = Attended(out, lse)
    remember(result)
    return result


@lru_cache(maxsize=32)
def head_parts(
    num_heads: int, num_kv_heads: int, ulysses_degree: int, head_groups: int
) -> tuple[tuple[HeadRange, HeadRange, HeadPlan], ...]:
    """Divide heads into groups that go through together: query heads, KV heads, their head plan."""
    share = HeadPlan(num_heads, num_kv_heads, 1).queries_per_kv
    return tuple(
        (
            HeadRange(kv.start * share, kv.stop * share),
            kv,
            HeadPlan(kv.size * share, kv.size, ulysses_degree),
        )
        for kv in head_group_ranges(num_kv_heads, head_groups)
    )
