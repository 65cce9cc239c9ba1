"""What a run trains on, as plain data: samples in rows, rows in bundles, bundles in steps and micro-steps.

A *row* is what the ranks that share a sequence work on at once. A *bundle* is the work of as many ranks as
the largest degree has: one row of it, or several rows of a smaller degree, next to each other. A step has a
fixed number of bundles.

All of this is a pure function of data, stage and seed, the same on every rank and for every size of the
world. Only ``micro_steps`` asks for the world: it says which bundles of a step are worked on at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from longvila.data.mixture import Draws


class MicroStepPlan(NamedTuple):
    """One forward and backward of the whole world, all of it at one degree.

    ``rows[g]`` are the packed rows, neighbours joined into one, that the g-th sp group of the world works on.
    """

    degree_index: int
    rows: tuple[range, ...]

    def row_of(self, rank: int, world_size: int) -> range:
        """Return the packed rows that a rank works on. The ranks of an sp group are consecutive."""
        return self.rows[rank * len(self.rows) // world_size]


@dataclass(frozen=True)
class RunPlan:
    """Which samples are trained on in which row, bundle and step.

    Row r holds the draws ``[row_starts[r], row_starts[r + 1])``, bundle b the rows ``[bundle_starts[b], …)``,
    step s the bundles ``[s · rows_per_step, …)``. Degrees are numbered, smallest first; a bundle of degree i
    has ``rows_per_bundle[i]`` rows, and the last number is 1: with one degree, bundles are rows.
    """

    draws: Draws
    row_starts: np.ndarray  # int64 [rows + 1]
    row_tokens: np.ndarray  # int64 [rows]
    row_scored: np.ndarray  # int64 [rows]
    bundle_starts: np.ndarray  # int64 [bundles + 1]
    bundle_degrees: np.ndarray  # int64 [bundles], the number of the smallest degree that the bundle fits
    bundle_pairs: np.ndarray  # int64 [bundles], squares of samples' tokens summed: the cost of attention
    rows_per_bundle: tuple[int, ...]
    rows_per_step: int
    epoch_size: int

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the run."""
        return len(self.bundle_degrees) // self.rows_per_step

    def rows_of(self, step: int) -> range:
        """Return the packed rows of an optimizer step."""
        first, last = step * self.rows_per_step, (step + 1) * self.rows_per_step
        return range(int(self.bundle_starts[first]), int(self.bundle_starts[last]))

    def row(self, row: int) -> Draws:
        """Return the samples of a row."""
        return self.draws_of(range(row, row + 1))

    def draws_of(self, rows: range) -> Draws:
        """Return the samples of neighbouring rows."""
        return self.draws.take(np.arange(self.row_starts[rows.start], self.row_starts[rows.stop]))

    def micro_steps(self, step: int, dp_size: int) -> list[MicroStepPlan]:
        """Divide a step for a world of ``dp_size`` replicas of the largest degree.

        Each micro-step takes ``dp_size`` bundles, at the largest degree of any of them: the smallest that
        holds all. They go by degree, and among equals by the cost of attention, because where weights are
        sharded replicas wait for each other in every micro-step. With one degree they go in the order of
        packing.
        """
        bundles = np.arange(step * self.rows_per_step, (step + 1) * self.rows_per_step)
        if len(self.rows_per_bundle) > 1:
            bundles = bundles[np.lexsort((self.bundle_pairs[bundles], self.bundle_degrees[bundles]))]
        return [self._micro_step(some) for some in bundles.reshape(-1, dp_size)]

    def epoch_at(self, step: int) -> float:
        """Return how many epochs have been drawn when ``step`` steps are done."""
        first_row = self.bundle_starts[step * self.rows_per_step]
        return float(self.row_starts[first_row] / self.epoch_size)

    def hash(self) -> str:
        """Return a hash of the whole plan."""
        digest = hashlib.sha256(str(self.rows_per_step).encode())
        parts = [*self.draws, self.row_starts, self.row_tokens, self.row_scored]
        if len(self.rows_per_bundle) > 1:  # with one degree, bundles say nothing that rows do not
            parts += [np.array(self.rows_per_bundle), self.bundle_starts, self.bundle_degrees]
        for part in parts:
            digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
        return digest.hexdigest()[:16]

    def _micro_step(self, bundles: np.ndarray) -> MicroStepPlan:
        degree_index = int(self.bundle_degrees[bundles].max())
        count = self.rows_per_bundle[degree_index]
        rows = [row for bundle in bundles.tolist() for row in self._joined(bundle, count)]
        return MicroStepPlan(degree_index, tuple(rows))

    def _joined(self, bundle: int, count: int) -> list[range]:
        """Join neighbouring rows of a bundle so that ``count`` are left. Documents never see one another."""
        start, stop = int(self.bundle_starts[bundle]), int(self.bundle_starts[bundle + 1])
        size = (stop - start) // count
        return [range(first, first + size) for first in range(start, stop, size)]
