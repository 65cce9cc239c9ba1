"""Intervals and tests for right-or-wrong answers.

Answers to questions about one video are not independent, so differences between two models are bootstrapped
by cluster (a video, or a stretch of one), and every single share carries Wilson's score interval.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np
from pydantic import Field

from longvila.errors import InputError
from longvila.records import Record


class Interval(Record):
    """A closed interval ``[low, high]`` and how sure it is."""

    low: float
    high: float
    confidence: float = 0.95


class Share(Record):
    """How many of how many were right, with Wilson's interval."""

    right: int = Field(ge=0)
    total: int = Field(ge=0)
    interval: Interval

    @property
    def value(self) -> float:
        """The share itself; not-a-number when nothing was asked."""
        return self.right / self.total if self.total else math.nan


class Difference(Record):
    """A mean paired difference with a cluster bootstrap's percentile interval."""

    value: float
    interval: Interval
    num_items: int
    num_clusters: int


class McNemar(Record):
    """Two models on the same questions: who alone is right, and the exact two-sided p-value."""

    only_first: int
    only_second: int
    p_value: float


def wilson(right: int, total: int, *, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a binomial share; ``[0, 1]`` when nothing was asked.

    Unlike the normal approximation it stays inside [0, 1] and is honest at 0 and at 1: five of five right
    is [0.57, 1.00].
    """
    if not 0 <= right <= total:
        raise InputError(f"right={right} of total={total}: give 0 ≤ right ≤ total")
    if total == 0:
        return Interval(low=0.0, high=1.0, confidence=confidence)
    z = _quantile(confidence)
    share = right / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    low = 0.0 if right == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if right == total else min(1.0, (centre + spread) / scale)
    return Interval(low=low, high=high, confidence=confidence)


def share(right: int, total: int, *, confidence: float = 0.95) -> Share:
    """Count and interval in one."""
    return Share(right=right, total=total, interval=wilson(right, total, confidence=confidence))


def share_of(answers: Sequence[bool], *, confidence: float = 0.95) -> Share:
    """Count right answers; see :func:`share`."""
    return share(sum(answers), len(answers), confidence=confidence)


def paired_difference(
    first: Sequence[bool],
    second: Sequence[bool],
    clusters: Sequence[Hashable],
    *,
    seed: int = 0,
    resamples: int = 4000,
    confidence: float = 0.95,
) -> Difference:
    """Return mean(first − second) with a percentile interval from resampling whole clusters.

    All three sequences run over the same questions. With fewer than two clusters nothing can be resampled
    and the interval is the whole range [-1, 1].
    """
    if not len(first) == len(second) == len(clusters):
        raise InputError(
            f"paired sequences differ in length: {len(first)}, {len(second)}, {len(clusters)} clusters; "
            "give one entry per question in each"
        )
    if not first:
        return Difference(
            value=0.0,
            interval=Interval(low=-1.0, high=1.0, confidence=confidence),
            num_items=0,
            num_clusters=0,
        )
    values = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    sums, counts = _per_cluster(values, clusters)
    if len(sums) < 2:
        interval = Interval(low=-1.0, high=1.0, confidence=confidence)
    else:
        interval = _percentiles(_resampled_means(sums, counts, seed=seed, resamples=resamples), confidence)
    return Difference(
        value=float(values.mean()), interval=interval, num_items=len(values), num_clusters=len(sums)
    )


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Compare two models on the same questions by McNemar's exact (binomial) test."""
    if len(first) != len(second):
        raise InputError(f"paired sequences differ in length: {len(first)} and {len(second)}")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    discordant = only_first + only_second
    tail = sum(math.comb(discordant, k) for k in range(min(only_first, only_second) + 1))
    p_value = min(1.0, 2 * tail / 2**discordant)
    return McNemar(only_first=only_first, only_second=only_second, p_value=p_value)


def _quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence}: give a number between 0 and 1, e.g. 0.95")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _per_cluster(values: np.ndarray, clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of the values of each cluster, clusters in order of first appearance."""
    number = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    owner = np.fromiter((number[cluster] for cluster in clusters), dtype=np.int64, count=len(values))
    sums = np.bincount(owner, weights=values, minlength=len(number))
    return sums, np.bincount(owner, minlength=len(number))


def _resampled_means(sums: np.ndarray, counts: np.ndarray, *, seed: int, resamples: int) -> np.ndarray:
    num_clusters = len(sums)
    drawn = np.random.default_rng(seed).multinomial(
        num_clusters, np.full(num_clusters, 1 / num_clusters), size=resamples
    )
    return (drawn @ sums) / (drawn @ counts)


def _percentiles(means: np.ndarray, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(low=float(low), high=float(high), confidence=confidence)
