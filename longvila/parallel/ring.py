"""Attention of one ring place over the whole row, keys coming from the other places by direct exchange.

At step t a place sends to ring place r - t just the slice of its K and V that this one needs, and receives
what it needs itself from place r + t; the messages of step t + 1 travel while step t is computed. On the way
back dK and dV return straight to their owner, in the kernel's dtype, and are added there in float32.

A ring that relays whole blocks from neighbour to neighbour, as usual, with gradients in float32, moves 2.67
times as many bytes between two places, and 1.8 times as many in large rings.
"""

# T rows held by this ring place, h query heads and g KV heads held here, D head size, s rows received.

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from longvila.parallel.blocks import Blocks, Saved, Sums
from longvila.parallel.comm import Group, Work
from longvila.parallel.merge import sum_dtype
from longvila.parallel.schedule import Step


@dataclass(frozen=True)
class RingAttention:
    """One ring place's attention, forward and backward, following a schedule."""

    blocks: Blocks
    group: Group

    def forward(self, q_ThD: Tensor, k_TgD: Tensor, v_TgD: Tensor) -> tuple[Tensor, Tensor]:
        """Return out_ThD and lse_hT. Padding rows get zeros."""
        arriving = self._request_keys(0, k_TgD, v_TgD)
        out, lse = self.blocks.attend(q_ThD, k_TgD, v_TgD)
        for t, step in enumerate(self._steps):
            k_sgD, v_sgD = arriving.wait()
            arriving = self._request_keys(t + 1, k_TgD, v_TgD)
            self.blocks.attend_further(step.calls, (q_ThD, k_sgD, v_sgD), out, lse)
        return out.to(q_ThD.dtype), lse

    def backward(self, saved: Saved, k_TgD: Tensor, v_TgD: Tensor) -> Sums:
        """Return the gradients of q, k and v, not rounded to their dtype yet."""
        arriving = self._request_keys(0, k_TgD, v_TgD)
        sums = self.blocks.gradients(saved, k_TgD, v_TgD)
        returning = _Returning.nothing()
        for t, step in enumerate(self._steps):
            k_sgD, v_sgD = arriving.wait()
            arriving = self._request_keys(t + 1, k_TgD, v_TgD)
            dkv = self._step_gradients(step, saved, k_sgD, v_sgD, sums.dq)
            sent_back = self._return_gradients(step, dkv)
            returning.add_to(sums)
            returning = sent_back
        returning.add_to(sums)
        return sums

    @property
    def _steps(self) -> tuple[Step, ...]:
        return self.blocks.schedule.steps

    def _request_keys(self, t: int, k_TgD: Tensor, v_TgD: Tensor) -> _Arriving:
        """Start the exchange of step t, if there is one: send the own slice, receive the needed one."""
        if t >= len(self._steps):
            return _Arriving(torch.cat([k_TgD[:0], v_TgD[:0]], dim=1), None)
        step = self._steps[t]
        arriving = k_TgD.new_empty(step.received, 2 * k_TgD.shape[1], k_TgD.shape[2])
        slices = [torch.cat([k_TgD[rows], v_TgD[rows]], dim=1) for rows in step.sends]
        sends = [(step.consumer, torch.cat(slices))] if slices else []
        return _Arriving(arriving, self.group.exchange(sends=sends, receives=[(step.owner, arriving)]))

    def _step_gradients(
        self, step: Step, saved: Saved, k_sgD: Tensor, v_sgD: Tensor, dq_ThD: Tensor
    ) -> Tensor:
        """Add a step's share of dq; return [dk | dv] of the received rows, in the kernel's dtype."""
        shape = (len(k_sgD), 2 * k_sgD.shape[1], k_sgD.shape[2])
        dkv_s2gD = torch.zeros(shape, dtype=sum_dtype(k_sgD.dtype), device=k_sgD.device)
        dk, dv = dkv_s2gD.chunk(2, dim=1)
        self.blocks.add_gradients(step.calls, saved, k_sgD, v_sgD, Sums(dq_ThD, dk, dv))
        return dkv_s2gD.to(k_sgD.dtype)

    def _return_gradients(self, step: Step, dkv_s2gD: Tensor) -> _Returning:
        """Start sending dK and dV to their owner; receive those of the rows that were sent in this step."""
        arriving = dkv_s2gD.new_empty(step.sent, *dkv_s2gD.shape[1:])
        work = self.group.exchange(sends=[(step.owner, dkv_s2gD)], receives=[(step.consumer, arriving)])
        return _Returning(step.sends, arriving, work)


class _Arriving(NamedTuple):
    """K and V on their way from another place."""

    kv: Tensor  # [s, 2g, D]
    work: Work | None

    def wait(self) -> tuple[Tensor, Tensor]:
        if self.work is not None:
            self.work.wait()
        k_sgD, v_sgD = self.kv.chunk(2, dim=1)
        return k_sgD, v_sgD


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
