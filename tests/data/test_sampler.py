from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from longvila.data.mixture import Mixture
from longvila.data.sampler import RAMP, START_SHARE, draw_order, further_draws, short_first


@given(lengths=st.lists(st.integers(1, 1000), max_size=100), seed=st.integers(0, 3))
def test_short_first_has_everything_once(lengths: list[int], seed: int) -> None:
    order = short_first(np.array(lengths, dtype=np.int64), seed=seed)
    assert sorted(order) == list(range(len(lengths)))
    assert order.tolist() == short_first(np.array(lengths, dtype=np.int64), seed=seed).tolist()


def test_the_cap_rises_until_all_are_let_in() -> None:
    count = 2000
    lengths = np.random.default_rng(0).integers(1, 1000, count)
    ranked = np.sort(lengths)
    seen = lengths[short_first(lengths, seed=1)]
    for place in range(0, count, 50):
        cap = count * (START_SHARE + (1 - START_SHARE) * place / (RAMP * count))
        assert seen[: place + 1].max() <= ranked[min(int(np.ceil(cap)), count - 1)]
    means = [part.mean() for part in np.array_split(seen, 5)]
    assert means[0] < 0.5 * lengths.mean()
    assert all(earlier < later for earlier, later in itertools.pairwise(means[:4]))
    assert seen[int(RAMP * count) :].min() < np.quantile(lengths, 0.4)  # short ones still come after the ramp


def test_equal_lengths_are_shuffled() -> None:
    order = short_first(np.full(100, 7), seed=0)
    assert order.tolist() != list(range(100))
    assert order.tolist() != short_first(np.full(100, 7), seed=1).tolist()


def test_draws_go_on_after_an_ordered_start() -> None:
    mixture = Mixture([np.arange(10)], [1.0], seed=0)
    lengths = [np.arange(1, 11)]
    first = draw_order(mixture, lengths, "short_first", 14, seed=0)
    assert sorted(first.sample) == sorted(mixture.first(14).sample)
    rest = list(itertools.islice(further_draws(mixture, 14), 3))
    joined = np.concatenate([mixture.first(14).sample, *(draws.sample for draws in rest)])
    assert joined.tolist() == mixture.first(40).sample.tolist()
