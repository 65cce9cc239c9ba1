"""The classic ring: whole K/V blocks go from neighbour to neighbour, until everyone has seen all of them.

This is the schedule of yunchang, ring-flash-attention and torch, with the zigzag order that balances causal
work. In the backward pass K and V are relayed again, and dK and dV travel with them, in float32, once around
the whole ring. With ``forward_again`` the backward pass runs the forward ring first, as ms-swift does. With a
Ulysses degree above 1 heads are swapped for tokens inside a node and blocks are relayed between nodes. Every
document of a packed row is divided on its own, as ring-flash-attention does it.

It uses our block kernel, so that only the schedule differs.
"""

# T rows held by a ring place, h query heads and g KV heads held here, D head size.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.ulysses import heads_to_tokens, repeat_kv, tokens_to_heads, whole_kernel
from longvila.parallel import Groups
from longvila.parallel.comm import Group, Work
from longvila.parallel.kernels import Mask
from longvila.parallel.regions import Kind


@dataclass(frozen=True)
class RelayLayout:
    """Who holds what. Every document's length must be a multiple of 2 · ring_degree."""

    lengths: tuple[int, ...]
    ulysses_degree: int
    ring_degree: int

    def ring_positions(self, ring_rank: int) -> np.ndarray:
        """Return the positions of a ring place: of each document an early and a late chunk."""
        found, start = [], 0
        for length in self.lengths:
            size, rest = divmod(length, 2 * self.ring_degree)
            assert rest == 0, "pad every document to a multiple of 2 * ring_degree"
            for chunk in (ring_rank, 2 * self.ring_degree - 1 - ring_rank):
                found.append(np.arange(start + chunk * size, start + (chunk + 1) * size))
            start += length
        return np.concatenate(found)

    def positions_of(self, sp_rank: int) -> np.ndarray:
        """Return the positions of a rank: its slice of its ring place's."""
        ring_rank, ulysses_rank = divmod(sp_rank, self.ulysses_degree)
        return np.split(self.ring_positions(ring_rank), self.ulysses_degree)[ulysses_rank]

    def halves(self) -> Iterator[tuple[slice, slice, slice]]:
        """Yield the rows of each document in a ring place's buffer: early half, late half, both."""
        start = 0
        for length in self.lengths:
            half = length // self.ring_degree // 2
            yield (
                slice(start, start + half),
                slice(start + half, start + 2 * half),
                slice(start, start + 2 * half),
            )
            start += 2 * half


class Attention2D:
    """One layer: heads swapped for tokens in the Ulysses group, blocks relayed in the ring."""

    def __init__(self, layout: RelayLayout, groups: Groups, *, forward_again: bool = False) -> None:
        self._groups = groups
        self._relay = Relay(layout, groups.ring, forward_again)

    def __call__(self, q_BHtD: Tensor, k_BhtD: Tensor, v_BhtD: Tensor, *, scale: float) -> Tensor:
        """Return out_BtHD."""
        group = self._groups.ulysses
        q, k, v = (x[0].transpose(0, 1) for x in (q_BHtD, k_BhtD, v_BhtD))
        k, v = (repeat_kv(x, group.size) for x in (k, v))
        q, k, v = (tokens_to_heads(x, group) for x in (q, k, v))
        out: Any = _Ring.apply(q, k, v, self._relay, scale)
        return heads_to_tokens(out, group)[None]


class Saved(NamedTuple):
    """The queries' side of the backward pass."""

    dout: Tensor
    q: Tensor
    out: Tensor
    lse: Tensor


@dataclass(frozen=True)
class Relay:
    """The ring's schedule, forward and backward."""

    layout: RelayLayout
    group: Group
    forward_again: bool = False

    def forward(self, q_ThD: Tensor, k_TgD: Tensor, v_TgD: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return out_ThD and lse_hT, both in the dtype of sums."""
        dtype = torch.promote_types(q_ThD.dtype, torch.float32)
        out = torch.zeros_like(q_ThD, dtype=dtype)
        lse = torch.zeros(q_ThD.shape[1], len(q_ThD), dtype=dtype)
        block = torch.stack([k_TgD, v_TgD])
        for step in range(self.group.size):
            passing = self._pass_on(block) if step + 1 < self.group.size else None
            for rows, keys, mask in self._calls(step):
                part, part_lse = whole_kernel(q_ThD, k_TgD).forward(
                    q_ThD[None, rows], block[:1, keys], block[1:, keys], mask=mask, scale=scale
                )
                if step == 0:
                    out[rows], lse[:, rows] = part[0].to(dtype), part_lse[0]
                else:
                    _merge(out[rows], lse[:, rows], part[0], part_lse[0])
            block = passing.wait() if passing else block
        return out, lse

    def backward(
        self, saved: Saved, k_TgD: Tensor, v_TgD: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return dq, dk and dv."""
        if self.forward_again:
            self.forward(saved.q, k_TgD, v_TgD, scale)
        dtype = torch.promote_types(k_TgD.dtype, torch.float32)
        dq = torch.zeros_like(saved.q, dtype=dtype)
        block = torch.stack([k_TgD, v_TgD])
        returning: _Passing | None = None
        for step in range(self.group.size):
            passing = self._pass_on(block) if step + 1 < self.group.size else None
            found = []
            for rows, keys, mask in self._calls(step):
                grads = whole_kernel(saved.q, k_TgD).backward(
                    *(saved.dout[None, rows], saved.q[None, rows], block[:1, keys], block[1:, keys]),
                    *(saved.out[None, rows], saved.lse[None, :, rows]),
                    mask=mask,
                    scale=scale,
                )
                dq[rows] += grads.dq[0]
                found.append((keys, grads))
            dkv = torch.zeros_like(block, dtype=dtype) if returning is None else returning.wait()
            for keys, grads in found:
                dkv[0, keys] += grads.dk[0]
                dkv[1, keys] += grads.dv[0]
            returning = self._pass_on(dkv)
            block = passing.wait() if passing else block
        assert returning is not None
        dk, dv = returning.wait().to(k_TgD.dtype)
        return dq.to(saved.q.dtype), dk, dv

    def _calls(self, step: int) -> Iterator[tuple[slice, slice, Mask]]:
        """Yield what is computed on the block that began ``step`` places before: queries, keys, mask."""
        for early, late, both in self.layout.halves():
            if step == 0:
                yield both, both, Mask(Kind.CAUSAL)
            elif step <= self.group.rank:  # an earlier place's: only its early half is in our past
                yield both, early, Mask(Kind.DENSE)
            else:  # a later place's: all of it is in the past of our late half
                yield late, both, Mask(Kind.DENSE)

    def _pass_on(self, block: Tensor) -> _Passing:
        """Start sending a block to the next place and receiving one from the place before."""
        arriving = torch.empty_like(block)
        if self.group.size == 1:
            return _Passing(block, None)
        after, before = (self.group.rank + 1) % self.group.size, (self.group.rank - 1) % self.group.size
        work = self.group.exchange(sends=[(after, block)], receives=[(before, arriving)])
        return _Passing(arriving, work)


class _Passing(NamedTuple):
    """A block on its way."""

    block: Tensor
    work: Work | None

    def wait(self) -> Tensor:
        if self.work is not None:
            self.work.wait()
        return self.block


def _merge(out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> None:
    """Join a block's result into out_thD and lse_ht, in place."""
    weight = torch.sigmoid(part_lse - lse).transpose(0, 1)[..., None]
    out.lerp_(part.to(out.dtype), weight)
    torch.logaddexp(lse, part_lse, out=lse)


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, relay: Relay, scale: float) -> Tensor:
        out, lse = relay.forward(q, k, v, scale)
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.relay, ctx.scale = relay, scale
        return out

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        return *ctx.relay.backward(Saved(dout, q, out, lse), k, v, ctx.scale), None, None
