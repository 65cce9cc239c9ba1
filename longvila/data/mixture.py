"""Several data sets with weights as one endless sequence of draws, a pure function of the seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from longvila.errors import ConfigError


class Draws(NamedTuple):
    """Samples to be trained on, in order: ``sample[i]`` of data set ``dataset[i]``."""

    dataset: np.ndarray  # int64 [n]
    sample: np.ndarray  # int64 [n]

    def take(self, order: np.ndarray) -> Draws:
        """Return these draws in another order, or some of them."""
        return Draws(self.dataset[order], self.sample[order])


class Mixture:
    """Draws from data sets so that each gives its share of an epoch.

    ``usable[d]`` are the samples of data set d. An epoch has as many draws as there are samples in all; data
    set d gives the share ``weights[d] / sum(weights)`` of them. Each data set is gone through in full, in a
    new order each time, before any of its samples comes again, across epochs too.
    """

    def __init__(self, usable: Sequence[np.ndarray], weights: Sequence[float], *, seed: int) -> None:
        if not usable or len(usable) != len(weights) or any(weight <= 0 for weight in weights):
            raise ConfigError(f"a mixture needs data sets with weights above 0; got weights {list(weights)}")
        if any(len(samples) == 0 for samples in usable):
            raise ConfigError("a data set of the mixture has no usable sample. Leave it out of the mixture.")
        self._usable = [np.asarray(samples, dtype=np.int64) for samples in usable]
        self._seed = seed
        self.epoch_size = sum(map(len, usable))
        self.shares = _largest_remainders(weights, self.epoch_size)

    def epoch(self, epoch: int) -> Draws:
        """Return the draws of one epoch, shuffled."""
        datasets = np.repeat(np.arange(len(self._usable)), self.shares)
        samples = np.concatenate(
            [self._stretch(d, epoch * share, share) for d, share in enumerate(self.shares)] or [datasets]
        )
        order = permutation(len(samples), self._seed, epoch)
        return Draws(datasets, samples).take(order)

    def first(self, num_draws: int) -> Draws:
        """Return the first ``num_draws`` of all epochs, one after another."""
        epochs = [self.epoch(epoch) for epoch in range(-(-num_draws // self.epoch_size))]
        joined = Draws(*(np.concatenate(columns) for columns in zip(*epochs, strict=True)))
        return joined.take(np.arange(num_draws))

    def _stretch(self, dataset: int, start: int, count: int) -> np.ndarray:
        """``count`` samples of one data set from place ``start`` of its endless sequence of passes."""
        samples = self._usable[dataset]
        first, last = start // len(samples), (start + max(count, 1) - 1) // len(samples)
        passes = [
            samples[permutation(len(samples), self._seed, dataset + 1, number)]
            for number in range(first, last + 1)
        ]
        return np.concatenate(passes)[start - first * len(samples) :][:count]


def permutation(count: int, *seeds: int) -> np.ndarray:
    """Return a random order of ``count`` things that depends on the seeds alone, int64."""
    return np.argsort(random_numbers(count, *seeds), kind="stable")


def random_numbers(count: int, *seeds: int) -> np.ndarray:
    """Return ``count`` random numbers that depend on the seeds alone, uint64.

    They are raw generator output, which numpy promises to keep from version to version.
    """
    generator = np.random.PCG64(np.random.SeedSequence([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds]))
    return generator.random_raw(count)


def _largest_remainders(weights: Sequence[float], total: int) -> list[int]:
    """Divide ``total`` in proportion to the weights, in whole numbers that add up to it; each at least 1."""
    exact = np.array(weights, dtype=np.float64) * (total / sum(weights))
    shares = np.maximum(np.floor(exact).astype(np.int64), 1)
    for d in np.argsort(shares - exact, kind="stable")[: max(0, total - int(shares.sum()))]:
        shares[d] += 1
    return shares.tolist()
