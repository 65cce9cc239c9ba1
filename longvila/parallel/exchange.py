"""Visual tokens from the ranks that encoded them to the ranks that own their seats (MM-SP, stage one to two).

One all-to-all moves O(tokens · size / sp) per rank; its backward sends every gradient back to the encoder
that made the token. No rank ever holds the features of the whole sequence.
"""

# f frames encoded by this rank, k tokens per frame, m visual tokens of these, n visual tokens seated on this
# rank, D size of a token.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longvila.errors import ConfigError
from longvila.parallel.comm import Group
from longvila.parallel.groups import Groups
from longvila.parallel.plan import Plan

Exchange = Callable[[Tensor], Tensor]
"""features_fkD, or features_mD where frames have different sizes -> rows_nD"""


def make_exchange(plan: Plan, groups: Groups) -> Exchange:
    """Return the exchange of one plan: features of ``plan.frames_of(sp_rank)`` -> rows_nD.

    Features are [f, k, D], or [m, D], frame after frame. The rows are in the order of
    ``plan.local_seats(sp_rank)``. Collective, and so is its backward: on every
    rank the features must require a gradient, or on none. A rank without frames gives an empty slice of a
    dummy frame's features, and every rank uses its rows, even if there are none.
    """
    if plan.layout.sp_size != groups.sp_size:
        raise ConfigError(
            f"the plan is made for {plan.layout.sp_size} ranks per sequence, the groups for "
            f"{groups.sp_size}. Make both with the same degrees."
        )
    route = plan.route(groups.sp_rank)
    frames, num_rows = len(plan.frames_of(groups.sp_rank)), plan.num_rows(groups.sp_rank)
    tables = _Tables(
        send_rows=torch.from_numpy(route.send_rows),
        place=torch.from_numpy(route.place),
        send_counts=route.send_counts,
        receive_counts=route.receive_counts,
    )

    def exchange(features: Tensor) -> Tensor:
        rows_mD = features.flatten(0, -2)
        if len(rows_mD) != num_rows or (features.dim() == 3 and len(features) != frames):
            raise ConfigError(
                f"this rank encodes {frames} frames of {num_rows} visual tokens in all, but got features of "
                f"shape {tuple(features.shape)}. Encode plan.frames_of(sp_rank), in that order."
            )
        if not plan.num_frames:
            return rows_mD  # on no rank is there anything to send
        rows: Any = _Exchange.apply(rows_mD, tables.to(features.device), groups.sp)
        return rows

    return exchange


@dataclass(frozen=True)
class _Tables:
    """A route as tensors."""

    send_rows: Tensor
    place: Tensor
    send_counts: tuple[int, ...]
    receive_counts: tuple[int, ...]

    def to(self, device: torch.device) -> _Tables:
        return _Tables(
            self.send_rows.to(device), self.place.to(device), self.send_counts, self.receive_counts
        )


class _Exchange(torch.autograd.Function):
    """Encoded rows -> seated rows; on the way back each gradient returns to its encoder."""

    @staticmethod
    def forward(ctx: Any, rows_mD: Tensor, tables: _Tables, group: Group) -> Tensor:
        ctx.tables, ctx.group = tables, group
        # What is sent is an argument only, so that it is gone before the next copy is made.
        arrived = _all_to_all(
            rows_mD.index_select(0, tables.send_rows), tables.send_counts, tables.receive_counts, group
        )
        return arrived.index_select(0, tables.place)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_nD: Tensor
    ) -> tuple[Tensor, None, None]:
        tables: _Tables = ctx.tables
        arrived = _all_to_all(
            torch.empty_like(grad_nD).index_copy_(0, tables.place, grad_nD),
            *(tables.receive_counts, tables.send_counts, ctx.group),
        )
        return torch.empty_like(arrived).index_copy_(0, tables.send_rows, arrived), None, None


def _all_to_all(
    rows: Tensor, send_counts: tuple[int, ...], receive_counts: tuple[int, ...], group: Group
) -> Tensor:
    output = rows.new_empty(sum(receive_counts), rows.shape[1])
    group.all_to_all(
        output, rows.contiguous(), output_splits=receive_counts, source_splits=send_counts
    ).wait()
    return output
