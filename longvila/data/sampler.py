"""In which order the draws of a run are trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from longvila.data.mixture import Draws, Mixture, permutation, random_numbers

Order = Literal["shuffled", "short_first"]

START_SHARE = 0.1  # of the draws, by length, are let in at the start of a short_first run
RAMP = 0.6  # of the run, after which all are let in


def short_first(lengths: np.ndarray, *, seed: int) -> np.ndarray:
    """Return an order in which a cap on length rises as the run proceeds, int64.

    At each place the next draw is a random one of those below the cap that are left. The cap starts at the
    shortest ``START_SHARE`` of the draws and takes in all of them after ``RAMP`` of the run. Every draw comes
    exactly once. A pure function of the lengths and the seed.
    """
    count = len(lengths)
    tie_breaker = permutation(count, seed, 0)
    by_length = tie_breaker[np.argsort(lengths[tie_breaker], kind="stable")]
    dice = random_numbers(count, seed, 1).tolist()
    order = np.empty(count, dtype=np.int64)
    pool: list[int] = []
    let_in = 0
    for place in range(count):
        cap = count * (START_SHARE + (1 - START_SHARE) * place / (RAMP * count))
        while let_in < count and (let_in < cap or not pool):
            pool.append(int(by_length[let_in]))
            let_in += 1
        chosen = dice[place] % len(pool)
        pool[chosen], pool[-1] = pool[-1], pool[chosen]
        order[place] = pool.pop()
    return order


def draw_order(
    mixture: Mixture, lengths_of: list[np.ndarray], order: Order, num_draws: int, *, seed: int
) -> Draws:
    """Return the first ``num_draws`` of the mixture in the order asked for.

    ``lengths_of[d]`` are the tokens of all samples of data set d.
    """
    draws = mixture.first(num_draws)
    if order == "shuffled":
        return draws
    return draws.take(short_first(draw_lengths(draws, lengths_of), seed=seed))


def further_draws(mixture: Mixture, num_draws: int) -> Iterator[Draws]:
    """Yield the draws of the mixture after the first ``num_draws``, epoch by epoch, without end."""
    epoch, skip = divmod(num_draws, mixture.epoch_size)
    while True:
        draws = mixture.epoch(epoch)
        yield draws.take(np.arange(skip, mixture.epoch_size))
        epoch, skip = epoch + 1, 0


def draw_lengths(draws: Draws, lengths_of: list[np.ndarray]) -> np.ndarray:
    """Return the tokens of each draw, int64."""
    lengths = np.empty(len(draws.sample), dtype=np.int64)
    for dataset, of_dataset in enumerate(lengths_of):
        mine = draws.dataset == dataset
        lengths[mine] = of_dataset[draws.sample[mine]]
    return lengths
