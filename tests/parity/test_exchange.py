"""Visual tokens on their way from encoders to seats: values and gradients against one process."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longvila.errors import ConfigError
from longvila.parallel import Plan, make_exchange, make_groups, make_plan
from tests.distributed import run_ranks

SIZE = 3
CASES = {
    # documents, seats of frames, their visual tokens, their patches
    "one frame": ((40,), (7,), 4, (1,)),
    "no frames": ((40,), (), 4, ()),
    "fewer frames than ranks": ((40, 30), (7, 45), 9, (1, 1)),
    "many frames": ((200, 100), (*range(3, 190, 9), 201, 220, 290), 8, (1,) * 24),
    "frames of different cost": ((200,), (0, 10, 60, 120, 130), 10, (1, 9, 1, 1, 4)),
    "images of different sizes": ((200, 30), (0, 10, 60, 120, 205), (3, 40, 1, 9, 25), (12, 160, 4, 36, 100)),
}


def plan_of(name: str, ulysses_degree: int, ring_degree: int) -> Plan:
    lengths, seats, tokens_per_frame, patches = CASES[name]
    return make_plan(
        lengths,
        seats,
        tokens_per_frame=tokens_per_frame,
        patches_per_frame=patches,
        ulysses_degree=ulysses_degree,
        ring_degree=ring_degree,
    )


def features_of(plan: Plan) -> Tensor:
    """Features [m, D] of all frames, that name their frame, token and channel."""
    num_rows = int(plan.frame_tokens.sum())
    return torch.arange(num_rows * SIZE, dtype=torch.float64).view(num_rows, SIZE)


def rows_of(plan: Plan, sp_rank: int) -> slice:
    """Which of all rows a rank's own frames give."""
    before = sum(plan.num_rows(rank) for rank in range(sp_rank))
    return slice(before, before + plan.num_rows(sp_rank))


def weights_of(plan: Plan) -> Tensor:
    """The gradient that arrives at each position of the row."""
    return torch.randn(plan.layout.padded_length, SIZE, generator=torch.Generator().manual_seed(3)).double()


def exchange_on_rank(_rank: int, ulysses_degree: int, ring_degree: int) -> list[tuple[Tensor, Tensor]]:
    groups = make_groups(ulysses_degree=ulysses_degree, ring_degree=ring_degree)
    results = []
    for name in CASES:
        plan = plan_of(name, ulysses_degree, ring_degree)
        features = features_of(plan)[rows_of(plan, groups.sp_rank)].requires_grad_()
        rows = make_exchange(plan, groups)(features)
        positions = plan.layout.positions_of(groups.sp_rank)[plan.local_seats(groups.sp_rank)]
        (rows * weights_of(plan)[positions]).sum().backward()
        assert features.grad is not None
        results.append((rows.detach(), features.grad))
    return results


@pytest.mark.parametrize(
    ("ulysses_degree", "ring_degree"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 2), (2, 4)]
)
def test_each_token_reaches_its_seat_and_its_gradient_comes_back(
    ulysses_degree: int, ring_degree: int
) -> None:
    results = run_ranks(exchange_on_rank, ulysses_degree * ring_degree, ulysses_degree, ring_degree)
    for i, name in enumerate(CASES):
        plan = plan_of(name, ulysses_degree, ring_degree)
        row = torch.zeros(plan.layout.padded_length, SIZE, dtype=torch.float64)
        for sp_rank, result in enumerate(results):
            row[plan.layout.positions_of(sp_rank)[plan.local_seats(sp_rank)]] = result[i][0]
        seats = torch.cat(
            [
                torch.arange(seat, seat + tokens)
                for seat, tokens in zip(plan.frame_seats, plan.frame_tokens, strict=True)
            ]
            or [torch.zeros(0, dtype=torch.int64)]
        )
        wanted = torch.zeros_like(row).index_copy(0, seats, features_of(plan))
        assert torch.equal(row, wanted), name
        gradient = torch.cat([result[i][1] for result in results])
        assert torch.equal(gradient, weights_of(plan)[seats]), name


def test_features_of_other_frames_are_refused() -> None:
    exchange = make_exchange(plan_of("one frame", 1, 1), make_groups())
    for features in (torch.zeros(2, 4, SIZE), torch.zeros(2, 2, SIZE), torch.zeros(3, SIZE)):
        with pytest.raises(ConfigError, match=r"Encode plan\.frames_of\(sp_rank\)"):
            exchange(features)


def test_a_plan_for_other_degrees_is_refused() -> None:
    with pytest.raises(ConfigError, match="Make both with the same degrees"):
        make_exchange(plan_of("one frame", 2, 1), make_groups())
