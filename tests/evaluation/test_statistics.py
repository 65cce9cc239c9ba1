import math

import numpy as np
import pytest

from longvila.errors import InputError
from longvila.evaluation import statistics


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (5, 5, 0.5655, 1.0),  # published: [0.57, 1.0]
        (0, 10, 0.0, 0.2775),
        (599, 600, 0.9906, 0.9997),  # LongVILA's needle grid: 99.06–99.97 %
        (8, 10, 0.4902, 0.9433),
    ],
)
def test_wilson_gives_the_published_values(right, total, low, high):
    interval = statistics.wilson(right, total)
    assert interval.low == pytest.approx(low, abs=1e-4)
    assert interval.high == pytest.approx(high, abs=1e-4)


def test_wilson_of_nothing_is_everything():
    share = statistics.share(0, 0)
    assert (share.interval.low, share.interval.high) == (0.0, 1.0)
    assert math.isnan(share.value)


def test_wilson_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth, trials = 0.3, 40
    draws = rng.binomial(trials, truth, size=2000)
    intervals = [statistics.wilson(int(k), trials) for k in draws]
    covered = np.mean([i.low <= truth <= i.high for i in intervals])
    assert 0.93 < covered < 0.97


def test_wilson_refuses_impossible_counts():
    with pytest.raises(InputError, match="give 0 ≤ right ≤ total"):
        statistics.wilson(6, 5)
    with pytest.raises(InputError, match="between 0 and 1"):
        statistics.wilson(1, 5, confidence=95)


def test_cluster_bootstrap_is_wider_than_independent_questions():
    """With all questions of a video alike, only the number of videos counts."""
    rng = np.random.default_rng(1)
    first, clusters = [], []
    for video in range(20):
        first += [bool(rng.random() < 0.5)] * 25
        clusters += [video] * 25
    second = [False] * len(first)
    clustered = statistics.paired_difference(first, second, clusters)
    independent = statistics.paired_difference(first, second, range(len(first)))
    assert clustered.value == independent.value == pytest.approx(np.mean(first))
    assert clustered.num_clusters == 20
    width = clustered.interval.high - clustered.interval.low
    assert width > 4 * (independent.interval.high - independent.interval.low)  # sqrt(25) in theory


def test_cluster_bootstrap_covers_as_often_as_it_says():
    covered = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        rate = rng.beta(2, 2, size=30)  # the mean over videos is ½
        first = [bool(x) for p in rate for x in rng.random(8) < p]
        clusters = [v for v in range(30) for _ in range(8)]
        interval = statistics.paired_difference(
            first, [False] * len(first), clusters, seed=seed, resamples=400
        ).interval
        covered += interval.low <= 0.5 <= interval.high
    assert 0.87 < covered / 150 <= 1.0


def test_one_cluster_says_that_it_knows_nothing():
    difference = statistics.paired_difference([True, True], [False, True], ["a", "a"])
    assert difference.value == 0.5
    assert (difference.interval.low, difference.interval.high) == (-1.0, 1.0)


def test_bootstrap_is_a_function_of_its_seed():
    args = ([True, False, True, True], [False, False, True, False], [0, 1, 2, 3])
    assert statistics.paired_difference(*args, seed=3) == statistics.paired_difference(*args, seed=3)


def test_mcnemar_is_the_exact_binomial_test():
    first = [True] * 9 + [False] * 1 + [True] * 20
    second = [False] * 9 + [True] * 1 + [True] * 20
    test = statistics.mcnemar(first, second)
    assert (test.only_first, test.only_second) == (9, 1)
    assert test.p_value == pytest.approx(2 * (1 + 10) / 1024)
    assert statistics.mcnemar([True, False], [True, False]).p_value == 1.0


def test_pairs_must_match():
    with pytest.raises(InputError, match="one entry per question"):
        statistics.paired_difference([True], [True, False], [0])
    with pytest.raises(InputError, match="differ in length"):
        statistics.mcnemar([True], [True, False])
