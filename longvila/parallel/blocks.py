"""Attention of the queries that a ring place holds, over whatever keys it has at hand: no messages.

Results of regions are joined by log-sum-exp, gradients of regions are added up, both in float32 (float64 for
float64 inputs).
"""

# T rows held by a ring place, s rows of a key buffer, h query heads and g KV heads held here, D head size.

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from longvila.parallel.kernels import Gradients, Kernel, Mask
from longvila.parallel.merge import merge, sum_dtype
from longvila.parallel.regions import Kind
from longvila.parallel.schedule import Call, Schedule, Stack


class Saved(NamedTuple):
    """The queries' side of a backward pass; out and lse are those over *all* keys."""

    dout: Tensor  # [T, h, D]
    q: Tensor  # [T, h, D]
    out: Tensor  # [T, h, D]
    lse: Tensor  # [h, T]


class Sums(NamedTuple):
    """Gradients while they are added up."""

    dq: Tensor  # [T, h, D]
    dk: Tensor  # [s, g, D]
    dv: Tensor  # [s, g, D]


@dataclass(frozen=True)
class Blocks:
    """The kernel calls of a schedule, forward and backward."""

    schedule: Schedule
    kernel: Kernel
    scale: float

    def attend(self, q_ThD: Tensor, k_TgD: Tensor, v_TgD: Tensor) -> tuple[Tensor, Tensor]:
        """Return out_ThD and lse_hT over the own keys, out in the dtype of sums if more is to come.

        Padding rows hold zeros.
        """
        schedule = self.schedule
        if schedule.is_one_square:
            out_BThD, lse_BhT = self._call(schedule.squares[0], q_ThD, k_TgD, v_TgD)
            return out_BThD[0], lse_BhT[0]
        dtype = sum_dtype(q_ThD.dtype)
        out = torch.zeros(q_ThD.shape, dtype=dtype if schedule.merges else q_ThD.dtype, device=q_ThD.device)
        lse = torch.zeros(q_ThD.shape[1], schedule.length, dtype=dtype, device=q_ThD.device)
        for call in schedule.squares:
            part, part_lse = self._call(call, q_ThD, k_TgD, v_TgD)
            out[call.q] = part[0].to(out.dtype)
            lse[:, call.q] = part_lse[0]
        if schedule.stack is not None:
            self._attend_stack(schedule.stack, (q_ThD, k_TgD, v_TgD), out, lse)
        self.attend_further(schedule.own, (q_ThD, k_TgD, v_TgD), out, lse)
        return out, lse

    def attend_further(
        self, calls: Iterable[Call], qkv: tuple[Tensor, Tensor, Tensor], out_ThD: Tensor, lse_hT: Tensor
    ) -> None:
        """Join the attention over a further buffer of keys into out and lse, in place."""
        for call in calls:
            part, part_lse = self._call(call, *qkv)
            merge(out_ThD[call.q], lse_hT[:, call.q], part[0], part_lse[0])

    def gradients(self, saved: Saved, k_TgD: Tensor, v_TgD: Tensor) -> Sums:
        """Return the gradients from the own keys, in the dtype of sums if more is to come."""
        if self.schedule.is_one_square:
            square = self.schedule.squares[0]
            return Sums(*(grad[0] for grad in self._call_backward(square, saved, k_TgD, v_TgD)))
        sums = self.no_gradients(saved, k_TgD, v_TgD)
        self.add_own_gradients(saved, k_TgD, v_TgD, sums)
        return sums

    def no_gradients(self, saved: Saved, k_TgD: Tensor, v_TgD: Tensor) -> Sums:
        """Return zeros to add gradients to."""
        dtype = sum_dtype(k_TgD.dtype)
        return Sums(*(torch.zeros_like(x, dtype=dtype) for x in (saved.q, k_TgD, v_TgD)))

    def add_own_gradients(self, saved: Saved, k_TgD: Tensor, v_TgD: Tensor, sums: Sums) -> None:
        """Add the gradients from the own keys."""
        if self.schedule.stack is not None:
            self._add_stack(self.schedule.stack, saved, k_TgD, v_TgD, sums)
        self.add_gradients((*self.schedule.squares, *self.schedule.own), saved, k_TgD, v_TgD, sums)

    def add_gradients(
        self, calls: Iterable[Call], saved: Saved, k_sgD: Tensor, v_sgD: Tensor, sums: Sums
    ) -> None:
        """Add the gradients of calls on a buffer of keys."""
        for call in calls:
            grads = self._call_backward(call, saved, k_sgD, v_sgD)
            sums.dq[call.q] += grads.dq[0]
            sums.dk[call.k] += grads.dk[0]
            sums.dv[call.k] += grads.dv[0]

    def _call(self, call: Call, q_ThD: Tensor, k_sgD: Tensor, v_sgD: Tensor) -> tuple[Tensor, Tensor]:
        return self.kernel.forward(
            q_ThD[None, call.q], k_sgD[None, call.k], v_sgD[None, call.k], mask=call.mask, scale=self.scale
        )

    def _call_backward(self, call: Call, saved: Saved, k_sgD: Tensor, v_sgD: Tensor) -> Gradients:
        return self.kernel.backward(
            *(saved.dout[None, call.q], saved.q[None, call.q], k_sgD[None, call.k], v_sgD[None, call.k]),
            *(saved.out[None, call.q], saved.lse[None, :, call.q]),
            mask=call.mask,
            scale=self.scale,
        )

    def _attend_stack(
        self, stack: Stack, qkv: tuple[Tensor, Tensor, Tensor], out_ThD: Tensor, lse_hT: Tensor
    ) -> None:
        """Run the stacked squares and put their results into their rows of out and lse."""
        gathered = [tensor.index_select(0, stack.rows) for tensor in qkv]
        outs, lses = [], []
        for first, squares, size in stack.calls:
            q, k, v = (_stacked(tensor, first, squares, size) for tensor in gathered)
            part, part_lse = self.kernel.forward(q, k, v, mask=Mask(Kind.CAUSAL), scale=self.scale)
            outs.append(part.flatten(0, 1))
            lses.append(part_lse.transpose(0, 1).flatten(1))
        out_ThD[stack.kept_rows] = torch.cat(outs).index_select(0, stack.kept_slots).to(out_ThD.dtype)
        lse_hT[:, stack.kept_rows] = torch.cat(lses, dim=1).index_select(1, stack.kept_slots)

    def _add_stack(self, stack: Stack, saved: Saved, k_TgD: Tensor, v_TgD: Tensor, sums: Sums) -> None:
        """Add the gradients of the stacked squares. Repeated queries have none, so their keys get none."""
        rows = (saved.dout, saved.q, k_TgD, v_TgD, saved.out)
        gathered = [tensor.index_select(0, stack.rows) for tensor in rows]
        gathered[0].index_fill_(0, stack.repeated_slots, 0)
        lse_hT = saved.lse.index_select(1, stack.rows)
        parts: list[Gradients] = []
        for first, squares, size in stack.calls:
            dout, q, k, v, out = (_stacked(tensor, first, squares, size) for tensor in gathered)
            lse = lse_hT[:, first : first + squares * size].unflatten(1, (squares, size)).transpose(0, 1)
            parts.append(
                self.kernel.backward(dout, q, k, v, out, lse, mask=Mask(Kind.CAUSAL), scale=self.scale)
            )
        for total, grads in zip(sums, zip(*parts, strict=True), strict=True):
            flat = torch.cat([grad.flatten(0, 1) for grad in grads]).index_select(0, stack.kept_slots)
            total.index_add_(0, stack.kept_rows, flat.to(total.dtype))


def _stacked(flat: Tensor, first: int, squares: int, size: int) -> Tensor:
    """View slots of a stacked buffer as [squares, size, ...]."""
    return flat[first : first + squares * size].unflatten(0, (squares, size))
