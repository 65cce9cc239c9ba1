from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvila.data.mixture import Mixture, permutation
from longvila.errors import ConfigError


def test_permutations_never_change() -> None:
    # These orders are part of every resume: a new numpy, or a change here, must not alter them.
    assert permutation(8, 0, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert permutation(8, 0, 1).tolist() == [7, 4, 5, 1, 6, 2, 0, 3]
    assert permutation(0, 3).tolist() == []


@given(count=st.integers(0, 200), seed=st.integers(-5, 2**40))
def test_a_permutation_has_everything_once(count: int, seed: int) -> None:
    assert sorted(permutation(count, seed)) == list(range(count))


def test_one_data_set_comes_once_per_epoch_in_a_new_order() -> None:
    mixture = Mixture([np.array([3, 5, 8, 9, 12])], [1.0], seed=4)
    epochs = [mixture.epoch(epoch).sample.tolist() for epoch in range(6)]
    assert all(sorted(epoch) == [3, 5, 8, 9, 12] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3
    assert Mixture([np.array([3, 5, 8, 9, 12])], [1.0], seed=4).epoch(2).sample.tolist() == epochs[2]
    assert Mixture([np.array([3, 5, 8, 9, 12])], [1.0], seed=5).epoch(2).sample.tolist() != epochs[2]


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.5, 10), min_size=4, max_size=4),
    num_epochs=st.integers(1, 5),
)
def test_shares_hold_and_no_sample_waits_longer_than_a_pass(
    sizes: list[int], weights: list[float], num_epochs: int
) -> None:
    weights = weights[: len(sizes)]
    mixture = Mixture([np.arange(size) for size in sizes], weights, seed=0)
    draws = mixture.first(num_epochs * mixture.epoch_size)
    assert len(draws.sample) == num_epochs * sum(sizes)
    for dataset, size in enumerate(sizes):
        mine = draws.sample[draws.dataset == dataset]
        assert len(mine) == num_epochs * mixture.shares[dataset]
        exact = num_epochs * sum(sizes) * weights[dataset] / sum(weights)
        assert abs(len(mine) - exact) <= num_epochs * len(sizes)
        counts = np.bincount(mine, minlength=size)
        assert counts.max() - counts.min() <= 1


def test_the_first_draws_are_a_prefix() -> None:
    mixture = Mixture([np.arange(10), np.arange(3)], [1.0, 1.0], seed=0)
    long, short = mixture.first(40), mixture.first(17)
    assert long.sample[:17].tolist() == short.sample.tolist()
    assert long.dataset[:17].tolist() == short.dataset.tolist()


def test_mixtures_that_cannot_be_are_told() -> None:
    with pytest.raises(ConfigError, match="weights above 0"):
        Mixture([np.arange(3)], [0.0], seed=0)
    with pytest.raises(ConfigError, match="no usable sample"):
        Mixture([np.arange(3), np.arange(0)], [1.0, 1.0], seed=0)
