"""What steps cost: kept per item in the ledger, so that killed runs count too, and beside each manifest."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from longvila.records import Record


class Cost(NamedTuple):
    """Seconds that one item took."""

    wall_s: float
    cpu_s: float


class StepStats(Record):
    """One step over one batch of items, all its runs added up."""

    step: str
    key: str
    num_items: int
    num_processed: int = 0  # by the run that ended the step; what earlier ones had done is not in it
    wall_s: float = 0.0  # of the items, added up: more than the clock's when several run at once
    cpu_s: float = 0.0
    finished_at: float = 0.0  # seconds since 1970


class CpuMeter:
    """Divides the process's CPU seconds equally among the spans that are open at the same time.

    A thread's own clock would leave out what decoders do in threads of theirs. Children count once they have
    ended, to whoever is open then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_s = 0.0
        self._open: dict[int, float] = {}
        self._next = 0

    def begin(self) -> int:
        """Open a span and return its number."""
        with self._lock:
            self._divide()
            self._next += 1
            self._open[self._next] = 0.0
            return self._next

    def end(self, span: int) -> float:
        """Close a span and return its CPU seconds."""
        with self._lock:
            self._divide()
            return self._open.pop(span)

    def _divide(self) -> None:
        now_s = sum(os.times()[:4])
        if self._open:
            share_s = (now_s - self._last_s) / len(self._open)
            for span in self._open:
                self._open[span] += share_s
        self._last_s = now_s


METER = CpuMeter()


class Stopwatch:
    """Measures what happens in a ``with`` block; ``cost`` is known after it."""

    cost: Cost

    def __enter__(self) -> Stopwatch:
        self._started_s = time.perf_counter()
        self._span = METER.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.cost = Cost(time.perf_counter() - self._started_s, METER.end(self._span))


def add_up(step: str, key: str, costs: Iterable[Any], *, num_items: int, num_processed: int) -> StepStats:
    """Add up the costs of a step's items; one that is not known (an older version's) counts as none."""
    known = [Cost(*cost) for cost in costs if isinstance(cost, (list, tuple)) and len(cost) == 2]
    return StepStats(
        step=step,
        key=key,
        num_items=num_items,
        num_processed=num_processed,
        wall_s=round(sum(cost.wall_s for cost in known), 4),
        cpu_s=round(sum(cost.cpu_s for cost in known), 4),
        finished_at=round(time.time(), 3),
    )
