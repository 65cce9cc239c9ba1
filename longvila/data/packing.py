"""Packs draws into rows, rows into bundles, and bundles into optimizer steps, from lengths alone.

The plan of a whole run is a pure function of lengths, weights, seed and stage. Ranks and resumes never enter
it: they only say which part of it is read.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice, pairwise
from typing import NamedTuple

import numpy as np

from longvila.data.lengths import Lengths
from longvila.data.mixture import Draws, Mixture
from longvila.data.run_plan import RunPlan
from longvila.data.sampler import Order, draw_lengths, draw_order, further_draws
from longvila.errors import InputError

WINDOW = 16  # rows that are open at once


class Row(NamedTuple):
    """Draws that are packed together, at the smallest degree that holds each of them."""

    degree_index: int
    draws: list[int]


class Bundle(NamedTuple):
    """Rows of one degree that fill the ranks of the largest."""

    degree_index: int
    rows: list[list[int]]


@dataclass(slots=True)
class _Open:
    """A row with ``room`` for so many tokens more, opened when ``since`` tokens had come."""

    row: Row
    room: int
    since: int


class Packer:
    """First fit, in order, within a window: a draw goes to the earliest open row that has room for it.

    It goes to rows of one degree only, the smallest whose rows hold it: ``capacities[i]`` is what a row of
    degree i holds in tokens, ascending, and nothing that goes there is shorter than ``shortest[i]``. When it
    fits nowhere a new row is opened, and the oldest is closed if more than ``window`` are open. With several
    degrees it is also closed when the tokens of ``window`` whole rows have come since it was opened: samples
    of a length that is rare would otherwise wait for their like until the run ends, and be left out.
    """

    def __init__(self, capacities: Sequence[int], *, shortest: Sequence[int], window: int = WINDOW) -> None:
        self._capacities = capacities
        self._shortest = shortest
        self._window = window
        self._longest_wait = window * capacities[-1] if len(capacities) > 1 else math.inf
        self._arrived = 0  # tokens
        self._open: list[_Open] = []  # oldest first

    def add(self, draw: int, length: int) -> Iterator[Row]:
        """Place one draw; yield the rows that this closes."""
        degree_index = bisect_left(self._capacities, length)
        if degree_index == len(self._capacities):
            raise InputError(f"a sample of {length} tokens does not fit max_tokens={self._capacities[-1]}")
        self._arrived += length
        place = self._place(degree_index, length)
        chosen = self._open[place]
        chosen.row.draws.append(draw)
        chosen.room -= length
        if chosen.room < self._shortest[degree_index]:
            yield self._open.pop(place).row
        elif len(self._open) > self._window or self._arrived - self._open[0].since > self._longest_wait:
            yield self._open.pop(0).row

    def flush(self) -> Iterator[Row]:
        """Yield the rows that are still open, oldest first."""
        while self._open:
            yield self._open.pop(0).row

    def _place(self, degree_index: int, length: int) -> int:
        """Return where the first open row with room is, a new one if there is none."""
        for place, one in enumerate(self._open):
            if one.row.degree_index == degree_index and length <= one.room:
                return place
        self._open.append(_Open(Row(degree_index, []), self._capacities[degree_index], self._arrived))
        return len(self._open) - 1


class Bundler:
    """Gathers the rows of each degree until a bundle is full."""

    def __init__(self, rows_per_bundle: Sequence[int]) -> None:
        self._rows_per_bundle = rows_per_bundle
        self._waiting: list[list[list[int]]] = [[] for _ in rows_per_bundle]

    def add(self, row: Row) -> Iterator[Bundle]:
        """Place one row; yield the bundle that it completes."""
        waiting = self._waiting[row.degree_index]
        waiting.append(row.draws)
        if len(waiting) == self._rows_per_bundle[row.degree_index]:
            self._waiting[row.degree_index] = []
            yield Bundle(row.degree_index, waiting)

    def flush(self) -> Iterator[Bundle]:
        """Join the rows that are left, less than a bundle of each degree, into rows of the next larger.

        So nothing is lost, and no rank is left without a row.
        """
        for degree_index, (smaller, larger) in enumerate(pairwise(self._rows_per_bundle)):
            rows, self._waiting[degree_index] = self._waiting[degree_index], []
            joined = smaller // larger
            for first in range(0, len(rows), joined):
                draws = list(chain.from_iterable(rows[first : first + joined]))
                yield from self.add(Row(degree_index + 1, draws))


def plan_run(
    lengths: Sequence[Lengths],
    weights: Sequence[float],
    *,
    seed: int,
    order: Order,
    max_tokens: int,
    rows_per_step: int,
    rows_per_bundle: Sequence[int] = (1,),
    steps: int | None = None,
    epochs: float = 1.0,
) -> RunPlan:
    """Plan a run of ``steps`` optimizer steps, or of as many as ``epochs`` give.

    ``rows_per_step`` counts rows of ``max_tokens``, or bundles of the same capacity: at degree i (smallest
    first) a bundle has ``rows_per_bundle[i]`` rows of ``max_tokens / rows_per_bundle[i]``, each number a
    divisor of the one before, the last 1.

    With ``epochs`` every draw is trained on; the last step is filled up from the next epoch. ``short_first``
    orders the draws of the whole run, so that its cap on length rises from the first step to the last.
    """
    mixture = Mixture([one.usable for one in lengths], weights, seed=seed)
    packing = _Packing([one.num_tokens for one in lengths], max_tokens, tuple(rows_per_bundle))
    if steps is None:
        num_draws = max(1, round(epochs * mixture.epoch_size))
        first = draw_order(mixture, packing.tokens_of, order, num_draws, seed=seed)
        packed = packing.pack([first])
        rest = packing.pack(further_draws(mixture, num_draws), -len(packed.bundles) % rows_per_step)
        packed = packed.join(rest)
    else:
        num_bundles = steps * rows_per_step
        packed = packing.pack(further_draws(mixture, 0), num_bundles)
        if order == "short_first":
            num_draws = 1 + max(packed.members())
            first = draw_order(mixture, packing.tokens_of, order, num_draws, seed=seed)
            packed = packing.pack(chain([first], further_draws(mixture, num_draws)), num_bundles)
    return _run_plan(packed, lengths, packing.rows_per_bundle, rows_per_step, mixture.epoch_size)


@dataclass(frozen=True)
class _Packed:
    """Draws in the order in which they came, and rows of their numbers, in bundles."""

    draws: Draws
    bundles: list[Bundle]

    def join(self, other: _Packed) -> _Packed:
        shift = len(self.draws.sample)
        shifted = [
            Bundle(degree_index, [[draw + shift for draw in row] for row in rows])
            for degree_index, rows in other.bundles
        ]
        return _Packed(_join([self.draws, other.draws]), self.bundles + shifted)

    def rows(self) -> list[list[int]]:
        return [row for bundle in self.bundles for row in bundle.rows]

    def members(self) -> list[int]:
        return list(chain.from_iterable(self.rows()))


@dataclass(frozen=True)
class _Packing:
    """Packs draws of samples of ``tokens_of[dataset][sample]`` tokens, as one stage wants it."""

    tokens_of: list[np.ndarray]
    max_tokens: int
    rows_per_bundle: tuple[int, ...]

    def pack(self, batches: Iterable[Draws], num_bundles: int | None = None) -> _Packed:
        """Pack all draws, or as many as ``num_bundles`` bundles take."""
        seen: list[Draws] = [Draws(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))]
        bundles = list(islice(self._bundles(batches, seen), num_bundles))
        return _Packed(_join(seen), bundles)

    def _bundles(self, batches: Iterable[Draws], seen: list[Draws]) -> Iterator[Bundle]:
        """Yield bundles as they are filled; what comes in is added to ``seen``."""
        bundler = Bundler(self.rows_per_bundle)
        for row in self._rows(batches, seen):
            yield from bundler.add(row)
        yield from bundler.flush()

    def _rows(self, batches: Iterable[Draws], seen: list[Draws]) -> Iterator[Row]:
        capacities = [self.max_tokens // rows for rows in self.rows_per_bundle]
        packer = Packer(capacities, shortest=self._shortest(capacities))
        draws = count()
        for batch in batches:
            seen.append(batch)
            for length in draw_lengths(batch, self.tokens_of).tolist():
                yield from packer.add(next(draws), length)
        yield from packer.flush()

    def _shortest(self, capacities: Sequence[int]) -> list[int]:
        """Return the tokens of the shortest sample that comes to each degree."""
        lengths = np.concatenate(self.tokens_of)
        return [
            int(lengths[(lengths > below) & (lengths <= capacity)].min(initial=capacity))
            for below, capacity in pairwise([0, *capacities])
        ]


def _join(batches: list[Draws]) -> Draws:
    return Draws(*(np.concatenate(columns) for columns in zip(*batches, strict=True)))


def _run_plan(
    packed: _Packed,
    lengths: Sequence[Lengths],
    rows_per_bundle: tuple[int, ...],
    rows_per_step: int,
    epoch_size: int,
) -> RunPlan:
    draws = packed.draws.take(np.array(packed.members(), dtype=np.int64))
    row_starts = _starts(packed.rows())
    bundle_starts = _starts([bundle.rows for bundle in packed.bundles])
    tokens = draw_lengths(draws, [one.num_tokens for one in lengths])
    scored = draw_lengths(draws, [one.num_scored for one in lengths])
    return RunPlan(
        draws=draws,
        row_starts=row_starts,
        row_tokens=np.add.reduceat(tokens, row_starts[:-1]),
        row_scored=np.add.reduceat(scored, row_starts[:-1]),
        bundle_starts=bundle_starts,
        bundle_degrees=np.array([bundle.degree_index for bundle in packed.bundles], dtype=np.int64),
        bundle_pairs=np.add.reduceat(tokens * tokens, row_starts[bundle_starts[:-1]]),
        rows_per_bundle=rows_per_bundle,
        rows_per_step=rows_per_step,
        epoch_size=epoch_size,
    )


def _starts(parts: Sequence[Sequence[object]]) -> np.ndarray:
    """Return where each part begins when they are joined, and the end of the last, int64."""
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
