"""Attention of one ring place over the whole row, keys coming from the other places by direct exchange.

At step t a place sends to ring place r - t just the slice of its K and V that this one needs, and receives
what it needs itself from place r + t; the messages of step t + 1 travel while step t is computed. On the way
back dK and dV return straight to their owner, in the kernel's dtype, and are added there in float32.

A ring that relays whole blocks from neighbour to neighbour, as usual, with gradients in float32, moves 2.67
times as many bytes between two places, and 1.8 times as many in large rings.
"""

# T rows held by this ring place, h query heads and g KV heads held here, D head size, s rows received.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from longvila.parallel.blocks import Blocks, Saved, Sums
from longvila.parallel.comm import Group, Work
from longvila.parallel.merge import sum_dtype
from longvila.parallel.schedule import Step


class RingOut(NamedTuple):
    """A ring place's result, and the keys that came from others, if they are kept."""

    out: Tensor  # [T, h, D]
    lse: Tensor  # [h, T]
    arrived: tuple[Tensor, ...]  # step by step, [K | V] of the rows that were sent: [s, 2g, D]


@dataclass(frozen=True)
class RingAttention:
    """One ring place's attention, forward and backward, following a schedule.

    With ``keep_keys`` what arrived in the forward pass is kept, and does not travel again.
    """

    blocks: Blocks
    group: Group
    keep_keys: bool = False

    def forward(self, q_ThD: Tensor, k_TgD: Tensor, v_TgD: Tensor) -> RingOut:
        """Attend over the whole row. Padding rows get zeros."""
        arriving = self._request_keys(0, k_TgD, v_TgD)
        out, lse = self.blocks.attend(q_ThD, k_TgD, v_TgD)
        arrived = []
        for t, step in enumerate(self._steps):
            kv_s2gD = arriving.wait()
            arriving = self._request_keys(t + 1, k_TgD, v_TgD)
            k_sgD, v_sgD = kv_s2gD.chunk(2, dim=1)
            self.blocks.attend_further(step.calls, (q_ThD, k_sgD, v_sgD), out, lse)
            arrived += [kv_s2gD] if self.keep_keys else []
        return RingOut(out.to(q_ThD.dtype), lse, tuple(arrived))

    def ask_for_keys(self, k_TgD: Tensor, v_TgD: Tensor) -> Arriving:
        """Start what the backward pass has to wait for: it may be called before ``dout`` is there."""
        return self._request_keys(0, k_TgD, v_TgD) if not self.keep_keys else Arriving(k_TgD, None)

    def backward(
        self, saved: Saved, k_TgD: Tensor, v_TgD: Tensor, asked: Arriving, arrived: Sequence[Tensor]
    ) -> Sums:
        """Return the gradients of q, k and v, not rounded to their dtype yet.

        The own keys come first, so that others' can travel meanwhile; where these are at hand, last, so that
        the gradients of others' can.
        """
        if self.keep_keys and self._steps:
            sums = self.blocks.no_gradients(saved, k_TgD, v_TgD)
        else:
            sums = self.blocks.gradients(saved, k_TgD, v_TgD)
        returning = _Returning.nothing()
        for t, step in enumerate(self._steps):
            if self.keep_keys:
                kv_s2gD = arrived[t]
            else:
                kv_s2gD = asked.wait()
                asked = self._request_keys(t + 1, k_TgD, v_TgD)
            dkv = self._step_gradients(step, saved, kv_s2gD, sums.dq)
            sent_back = self._return_gradients(step, dkv)
            returning.add_to(sums)
            returning = sent_back
        if self.keep_keys and self._steps:
            self.blocks.add_own_gradients(saved, k_TgD, v_TgD, sums)
        returning.add_to(sums)
        return sums

    @property
    def _steps(self) -> tuple[Step, ...]:
        return self.blocks.schedule.steps

    def _request_keys(self, t: int, k_TgD: Tensor, v_TgD: Tensor) -> Arriving:
        """Start the exchange of step t, if there is one: send the own slice, receive the needed one."""
        if t >= len(self._steps):
            return Arriving(k_TgD, None)
        step = self._steps[t]
        arriving = k_TgD.new_empty(step.received, 2 * k_TgD.shape[1], k_TgD.shape[2])
        slices = [torch.cat([k_TgD[rows], v_TgD[rows]], dim=1) for rows in step.sends]
        sends = [(step.consumer, torch.cat(slices) if len(slices) > 1 else slices[0])] if slices else []
        return Arriving(arriving, self.group.exchange(sends=sends, receives=[(step.owner, arriving)]))

    def _step_gradients(self, step: Step, saved: Saved, kv_s2gD: Tensor, dq_ThD: Tensor) -> Tensor:
        """Add a step's share of dq; return [dk | dv] of the received rows, in the kernel's dtype."""
        k_sgD, v_sgD = kv_s2gD.chunk(2, dim=1)
        dkv_s2gD = torch.zeros_like(kv_s2gD, dtype=sum_dtype(kv_s2gD.dtype))
        dk, dv = dkv_s2gD.chunk(2, dim=1)
        self.blocks.add_gradients(step.calls, saved, k_sgD, v_sgD, Sums(dq_ThD, dk, dv))
        return dkv_s2gD.to(kv_s2gD.dtype)

    def _return_gradients(self, step: Step, dkv_s2gD: Tensor) -> _Returning:
        """Start sending dK and dV to their owner; receive those of the rows that were sent in this step."""
        arriving = dkv_s2gD.new_empty(step.sent, *dkv_s2gD.shape[1:])
        work = self.group.exchange(sends=[(step.owner, dkv_s2gD)], receives=[(step.consumer, arriving)])
        return _Returning(step.sends, arriving, work)


class Arriving(NamedTuple):
    """[K | V] on their way from another place."""

    kv_s2gD: Tensor
    work: Work | None

    def wait(self) -> Tensor:
        """Return them once they have arrived."""
        if self.work is not None:
            self.work.wait()
        return self.kv_s2gD


class _Returning(NamedTuple):
    """Gradients of the rows that were sent out, on their way back."""

    rows: tuple[slice, ...]
    dkv: Tensor | None  # [sent, 2g, D]
    work: Work | None

    @classmethod
    def nothing(cls) -> _Returning:
        return cls((), None, None)

    def add_to(self, sums: Sums) -> None:
        if self.dkv is None or self.work is None:
            return
        self.work.wait()
        first = 0
        for rows in self.rows:
            stop = first + rows.stop - rows.start
            dk, dv = self.dkv[first:stop].chunk(2, dim=1)
            sums.dk[rows] += dk
            sums.dv[rows] += dv
            first = stop
