"""What the published index arithmetic does to the chunks of a sequence."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.peers.vila_indices import Pairs, pairs, partition, positions_of


@pytest.mark.parametrize(
    ("degrees", "wanted"),
    [
        ((1, 2), Pairs(causal=10, missed=0, future=0)),
        ((1, 4), Pairs(causal=36, missed=0, future=0)),
        ((2, 2), Pairs(causal=36, missed=4, future=4)),
        ((2, 4), Pairs(causal=136, missed=24, future=24)),
    ],
)
def test_the_ring_alone_is_right_and_with_ulysses_looks_ahead(
    degrees: tuple[int, int], wanted: Pairs
) -> None:
    assert partition(*degrees).unheld == 0
    assert pairs(*degrees) == wanted


@pytest.mark.parametrize("degrees", [(4, 2), (4, 4), (8, 2)])
def test_from_ulysses_4_on_some_chunks_are_on_no_rank(degrees: tuple[int, int]) -> None:
    found = partition(*degrees)
    assert found.unheld == found.behind_the_end > 0


@pytest.mark.parametrize("degrees", [(1, 4), (2, 2), (4, 1)])
def test_four_ranks_hold_every_token_once(degrees: tuple[int, int]) -> None:
    held = np.concatenate([positions_of(rank, *degrees, 32) for rank in range(4)])
    assert sorted(held.tolist()) == list(range(32))
