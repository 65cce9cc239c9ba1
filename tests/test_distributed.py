"""The runner of ranks itself: results in order, and failures that are heard of at once."""

from __future__ import annotations

import os
import time

import pytest
import torch
import torch.distributed as dist

from tests.distributed import RankFailed, run_ranks


def summed(rank: int, factor: int) -> tuple[int, torch.Tensor]:
    tensor = torch.tensor([rank * factor])
    dist.all_reduce(tensor)
    return rank, tensor


def failing(rank: int) -> None:
    if rank == 1:
        raise ValueError("rank one has had enough")
    dist.barrier()


def dying(rank: int) -> None:
    if rank == 1:
        os._exit(7)
    dist.barrier()


def hanging(rank: int) -> None:
    if rank == 1:
        time.sleep(60)


def test_results_come_in_the_order_of_ranks() -> None:
    results = run_ranks(summed, 3, 10)
    assert [(rank, tensor.item()) for rank, tensor in results] == [(0, 30), (1, 30), (2, 30)]


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (failing, "rank 1:\n(.*\n)+ValueError: rank one has had enough"),
        (dying, "rank 1 ended with exit code 7"),
    ],
)
def test_a_rank_that_fails_ends_the_others(fn: object, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(RankFailed, match=message):
        run_ranks(fn, 2)  # pyright: ignore[reportArgumentType]
    assert time.monotonic() - started < 30


def test_a_rank_that_hangs_is_named() -> None:
    with pytest.raises(RankFailed, match=r"rank 1 was still running and was killed \(timeout_s=2\.0\)"):
        run_ranks(hanging, 2, timeout_s=2.0)
