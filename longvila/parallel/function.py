"""Attention over all ranks, forward and backward: tokens to heads, around the ring, and back.

``attend`` and ``gradients`` are plain functions; ``AttentionFunction`` makes them one node of autograd, which
saves what lies between the two all-to-alls, as it is on this rank. Heads may go through in parts, one part's
messages on their way while another is computed.
"""

# t tokens held by this rank, T rows of a ring place between the two all-to-alls, H query heads, h KV heads,
# D head size. q, k, v, out of one part: T rows, the heads of the part that are held here.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longvila.parallel.blocks import Saved
from longvila.parallel.columns import Columns, HeadGradients
from longvila.parallel.comm import Group
from longvila.parallel.heads import HeadPart, HeadRange
from longvila.parallel.memory import Attended, recall, remember
from longvila.parallel.merge import add_sinks, sink_gradient, sum_dtype
from longvila.parallel.ring import RingAttention
from longvila.parallel.ulysses import Behind, OnTheWay, ahead, to_heads, to_tokens


class Heads(NamedTuple):
    """Query, key and value heads of the same tokens, or their gradients."""

    q: Tensor
    k: Tensor
    v: Tensor


class PartSaved(NamedTuple):
    """What the backward pass needs of one part: the heads that arrived with it, and its result."""

    q: Tensor
    new_k: Tensor
    new_v: Tensor
    out: Tensor
    lse: Tensor
    arrived: tuple[Tensor, ...] = ()  # keys that came around the ring, if they are kept


@dataclass
class Carried:
    """The KV head that the part before looked at too, and what that part found of its gradient."""

    k: Tensor | None = None
    v: Tensor | None = None
    dk: Tensor | None = None
    dv: Tensor | None = None


class Sinks(NamedTuple):
    """The sinks of all query heads, and room for their gradient."""

    value_H: Tensor
    grad_H: Tensor


@dataclass(frozen=True)
class Part:
    """Heads that go through together: their division over ranks, their way around the ring."""

    heads: HeadPart
    ring: RingAttention
    group: Group

    def scatter(self, tokens: Heads) -> OnTheWay:
        """Start the way of this part's heads of q, k, v to the ranks that work on them."""
        return to_heads(tokens, (self.heads.q, self.heads.arriving, self.heads.arriving), self.group)

    def attend(self, heads: Heads, sinks_H: Tensor | None) -> Attended:
        """Attend over the ring; give (out, lse) into keeping where a checkpoint asks for it."""
        out, lse, arrived = self.ring.forward(*heads)
        if sinks_H is not None:
            out, lse = add_sinks(out, lse, self.sinks(sinks_H))
        result = Attended(out, lse, arrived)
        remember(result)
        return result

    def gradients(
        self, arrivals: Iterator[list[Tensor]], kept: PartSaved, carried: Carried, sinks: Sinks | None
    ) -> list[Tensor]:
        """Return dq, and dk and dv of the KV heads that no later part looks at, in the inputs' dtype.

        The output's gradient comes from ``arrivals``, the sinks' goes into ``sinks``; ``carried`` is handed
        from part to part.
        """
        k, v = self.with_carried(kept.new_k, carried.k), self.with_carried(kept.new_v, carried.v)
        asked = self.ring.ask_for_keys(k, v)
        (dout,) = next(arrivals)
        if sinks is not None:
            found = sink_gradient(dout, kept.out, kept.lse, self.sinks(sinks.value_H))
            self.sinks(sinks.grad_H).copy_(found)
        saved = Saved(dout, kept.q, kept.out, kept.lse)
        dq, dk, dv = self.ring.backward(saved, k, v, asked, kept.arrived)
        dk, dv = _with_earlier(dk, carried.dk), _with_earlier(dv, carried.dv)
        ended, held = self._own(self.heads.ended).size, self._own(self.heads.kv).size
        carried.k = carried.v = carried.dk = carried.dv = None
        if ended < held:
            carried.k, carried.v, carried.dk, carried.dv = (x[:, ended:] for x in (k, v, dk, dv))
        return [x.to(dout.dtype) for x in (dq, dk[:, :ended], dv[:, :ended])]

    def gather_gradients(self, rounded: list[Tensor]) -> OnTheWay:
        """Start the way back of what ``gradients`` returned, which is used up."""
        return to_tokens(rounded, (self.heads.q, self.heads.ended, self.heads.ended), self.group)

    def with_carried(self, new: Tensor, before: Tensor | None) -> Tensor:
        """Put the KV head that the part before looked at too, if there is one, in front of new ones."""
        carried = self._own(self.heads.kv).size - new.shape[1]
        if not carried:
            return new
        assert before is not None, "no part comes before the first"
        last = before[:, -carried:]
        return torch.cat([last, new], dim=1) if new.shape[1] else last

    def sinks(self, sinks_H: Tensor) -> Tensor:
        """Return the sinks of this part's query heads held by this rank (a view)."""
        held = self._own(self.heads.q)
        return sinks_H[held.start : held.stop]

    def _own(self, ranges: tuple[HeadRange, ...]) -> HeadRange:
        return ranges[self.group.rank]


def attend(tokens: Heads, sinks_H: Tensor | None, parts: Sequence[Part]) -> tuple[Tensor, list[PartSaved]]:
    """Return out_tHD, and part by part what the backward pass needs."""
    saved: list[PartSaved] = []
    out_tHD, behind = Columns(tokens.q.shape[1]), Behind()
    k = v = None
    arrivals = ahead([partial(part.scatter, tokens) for part in parts])
    for part in parts:
        q, new_k, new_v = next(arrivals)
        k, v = part.with_carried(new_k, k), part.with_carried(new_v, v)
        result = recall() or part.attend(Heads(q, k, v), sinks_H)
        way = to_tokens([result.out], [part.heads.q], part.group)
        behind.push(way, partial(out_tHD.put, part.heads.q))
        saved.append(PartSaved(q, new_k, new_v, *result))
    behind.finish()
    return out_tHD.whole(), saved


def gradients(
    dout_tHD: Tensor, sinks_H: Tensor | None, parts: Sequence[Part], saved: list[PartSaved]
) -> tuple[Heads, Tensor | None]:
    """Return dq_tHD, dk_thD, dv_thD and the gradient of the sinks; what the ring needs again travels again.

    ``saved`` is used up: here memory is at its fullest, so nothing is held longer than it is needed.
    """
    whole, behind = HeadGradients(dout_tHD.shape[1], [part.heads for part in parts]), Behind()
    sinks = None if sinks_H is None else Sinks(sinks_H, torch.zeros_like(sinks_H))
    arrivals = ahead([partial(to_heads, [dout_tHD], [part.heads.q], part.group) for part in parts])
    carried = Carried()
    for part in parts:
        rounded = part.gradients(arrivals, saved.pop(0), carried, sinks)
        behind.push(part.gather_gradients(rounded), partial(whole.put, part.heads))
    behind.finish()
    return Heads(*whole.whole()), None if sinks is None else sinks.grad_H


class AttentionFunction(torch.autograd.Function):
    """q_tHD, k_thD, v_thD and the optional sinks_H -> out_tHD."""

    @staticmethod
    def forward(
        ctx: Any, q_tHD: Tensor, k_thD: Tensor, v_thD: Tensor, sinks_H: Tensor | None, parts: Sequence[Part]
    ) -> Tensor:
        """Attend, and save what the backward pass needs."""
        out, saved = attend(Heads(q_tHD, k_thD, v_thD), sinks_H, parts)
        flat = [(*part[:5], *part.arrived) for part in saved]
        ctx.save_for_backward(sinks_H, *chain(*flat))
        ctx.parts, ctx.counts = parts, [len(tensors) for tensors in flat]
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout_tHD: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k, v and the sinks."""
        sinks_H, *flat = ctx.saved_tensors
        saved = _unflatten(flat, ctx.counts)
        grads, dsinks_H = gradients(dout_tHD, sinks_H, ctx.parts, saved)
        return *grads, dsinks_H, None


def _unflatten(flat: list[Tensor], counts: Sequence[int]) -> list[PartSaved]:
    """Put what was saved back into parts, of so many tensors each; the list is used up."""
    saved = []
    for count in counts:
        q, new_k, new_v, out, lse, *arrived = flat[:count]
        del flat[:count]
        saved.append(PartSaved(q, new_k, new_v, out, lse, tuple(arrived)))
    return saved


def _with_earlier(grad: Tensor, earlier: Tensor | None) -> Tensor:
    """Add what the part before found for the KV head that both parts look at."""
    if earlier is None:
        return grad
    dtype = sum_dtype(grad.dtype)
    if earlier.shape == grad.shape:
        return earlier.to(dtype).add_(grad)
    total = grad.to(dtype)
    total[:, : earlier.shape[1]] += earlier
    return total
