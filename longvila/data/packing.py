"""Packs draws into rows of at most ``max_tokens`` tokens, and rows into optimizer steps, from lengths alone.

The plan of a whole run is a pure function of lengths, weights, seed and stage. Ranks and resumes never enter
it: they only say which part of it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from longvila.data.lengths import Lengths
from longvila.data.mixture import Draws, Mixture
from longvila.data.sampler import Order, draw_lengths, draw_order, further_draws
from longvila.errors import InputError

WINDOW = 16  # rows that are open at once


class Packer:
    """First fit, in order, within a window: a draw goes to the earliest open row that has room for it.

    When it fits nowhere a new row is opened, and the oldest is closed if more than ``window`` are open.
    """

    def __init__(self, max_tokens: int, *, shortest: int = 1, window: int = WINDOW) -> None:
        self._max_tokens = max_tokens
        self._shortest = shortest
        self._window = window
        self._open: list[tuple[int, list[int]]] = []  # (room, draws)

    def add(self, draw: int, length: int) -> Iterator[list[int]]:
        """Place one draw; yield the rows that this closes."""
        for place, (room, draws) in enumerate(self._open):
            if length <= room:
                draws.append(draw)
                self._open[place] = (room - length, draws)
                if room - length < self._shortest:
                    yield self._open.pop(place)[1]
                return
        if length > self._max_tokens:
            raise InputError(f"a sample of {length} tokens does not fit max_tokens={self._max_tokens}")
        self._open.append((self._max_tokens - length, [draw]))
        if self._max_tokens - length < self._shortest:
            yield self._open.pop()[1]
        elif len(self._open) > self._window:
            yield self._open.pop(0)[1]

    def flush(self) -> Iterator[list[int]]:
        """Yield the rows that are still open, oldest first."""
        while self._open:
            yield self._open.pop(0)[1]


@dataclass(frozen=True)
class RunPlan:
    """Which samples are trained on in which row and step.

    Row r holds the draws ``[row_starts[r], row_starts[r + 1])``; step s the rows ``[s · rows_per_step, …)``.
    """

    draws: Draws
    row_starts: np.ndarray  # int64 [rows + 1]
    row_tokens: np.ndarray  # int64 [rows]
    row_scored: np.ndarray  # int64 [rows]
    rows_per_step: int
    epoch_size: int

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the run."""
        return len(self.row_tokens) // self.rows_per_step

    def rows_of(self, step: int) -> range:
        """Return the rows of an optimizer step."""
        return range(step * self.rows_per_step, (step + 1) * self.rows_per_step)

    def row(self, row: int) -> Draws:
        """Return the samples of a row."""
        return self.draws.take(np.arange(self.row_starts[row], self.row_starts[row + 1]))

    def epoch_at(self, step: int) -> float:
        """Return how many epochs have been drawn when ``step`` steps are done."""
        return float(self.row_starts[step * self.rows_per_step] / self.epoch_size)

    def hash(self) -> str:
        """Return a hash of the whole plan."""
        digest = hashlib.sha256(str(self.rows_per_step).encode())
        for part in (*self.draws, self.row_starts, self.row_tokens, self.row_scored):
            digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
        return digest.hexdigest()[:16]


def plan_run(
    lengths: Sequence[Lengths],
    weights: Sequence[float],
    *,
    seed: int,
    order: Order,
    max_tokens: int,
    rows_per_step: int,
    steps: int | None = None,
    epochs: float = 1.0,
) -> RunPlan:
    """Plan a run of ``steps`` optimizer steps, or of as many as ``epochs`` give.

    With ``epochs`` every draw is trained on; the last step is filled up from the next epoch. ``short_first``
    orders the draws of the whole run, so that its cap on length rises from the first step to the last.
    """
    mixture = Mixture([one.usable for one in lengths], weights, seed=seed)
    tokens_of = [one.num_tokens for one in lengths]
    if steps is None:
        num_draws = max(1, round(epochs * mixture.epoch_size))
        first = draw_order(mixture, tokens_of, order, num_draws, seed=seed)
        packed = _pack([first], tokens_of, max_tokens)
        num_rows = -(-len(packed.rows) // rows_per_step) * rows_per_step
        rest = _pack(further_draws(mixture, num_draws), tokens_of, max_tokens, num_rows - len(packed.rows))
        return _run_plan(packed.join(rest), lengths, rows_per_step, mixture.epoch_size)
    num_rows = steps * rows_per_step
    packed = _pack(further_draws(mixture, 0), tokens_of, max_tokens, num_rows)
    if order == "short_first":
        num_draws = 1 + max(map(max, packed.rows))
        first = draw_order(mixture, tokens_of, order, num_draws, seed=seed)
        packed = _pack(_chain(first, mixture, num_draws), tokens_of, max_tokens, num_rows)
    return _run_plan(packed, lengths, rows_per_step, mixture.epoch_size)


@dataclass(frozen=True)
class _Packed:
    """Draws in the order in which they came, and rows of their numbers."""

    draws: Draws
    rows: list[list[int]]

    def join(self, other: _Packed) -> _Packed:
        shift = len(self.draws.sample)
        draws = Draws(*(np.concatenate(columns) for columns in zip(self.draws, other.draws, strict=True)))
        return _Packed(draws, self.rows + [[draw + shift for draw in row] for row in other.rows])


def _chain(first: Draws, mixture: Mixture, num_draws: int) -> Iterator[Draws]:
    yield first
    yield from further_draws(mixture, num_draws)


def _pack(
    batches: Iterable[Draws], tokens_of: list[np.ndarray], max_tokens: int, num_rows: int | None = None
) -> _Packed:
    """Pack all draws, or (``num_rows``) as many as that many rows take."""
    empty = np.zeros(0, dtype=np.int64)
    if num_rows == 0:
        return _Packed(Draws(empty, empty), [])
    shortest = min(int(one[one > 0].min()) for one in tokens_of)
    packer = Packer(max_tokens, shortest=shortest)
    seen: list[Draws] = []
    rows: list[list[int]] = []
    count = 0
    for draws in batches:
        seen.append(draws)
        for length in draw_lengths(draws, tokens_of).tolist():
            rows.extend(packer.add(count, length))
            count += 1
            if num_rows is not None and len(rows) >= num_rows:
                return _Packed(_join(seen), rows[:num_rows])
    rows.extend(packer.flush())
    return _Packed(_join(seen), rows)


def _join(batches: list[Draws]) -> Draws:
    return Draws(*(np.concatenate(columns) for columns in zip(*batches, strict=True)))


def _run_plan(packed: _Packed, lengths: Sequence[Lengths], rows_per_step: int, epoch_size: int) -> RunPlan:
    order = np.array([draw for row in packed.rows for draw in row], dtype=np.int64)
    draws = packed.draws.take(order)
    row_starts = np.concatenate([[0], np.cumsum([len(row) for row in packed.rows])]).astype(np.int64)
    tokens = draw_lengths(draws, [one.num_tokens for one in lengths])
    scored = draw_lengths(draws, [one.num_scored for one in lengths])
    return RunPlan(
        draws=draws,
        row_starts=row_starts,
        row_tokens=np.add.reduceat(tokens, row_starts[:-1]),
        row_scored=np.add.reduceat(scored, row_starts[:-1]),
        rows_per_step=rows_per_step,
        epoch_size=epoch_size,
    )
