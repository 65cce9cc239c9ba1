"""The classes in which lengths, sizes and words are counted."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence

from longvila.report.dataset.content import Bar, Distribution

SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0)
WORDS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
MAX_BARS = 12


class Histogram:
    """Counts numbers in classes ``[edge, next edge)``; empty classes at either end are left out."""

    def __init__(self, edges: Sequence[float], *, unit: str) -> None:
        self._edges = tuple(edges)
        self._unit = unit
        self._counts = [0] * (len(edges) + 1)

    def add(self, value: float, times: int = 1) -> None:
        """Count one value. What is no number counts as the largest."""
        place = len(self._edges) if math.isnan(value) else bisect_right(self._edges, value)
        self._counts[place] += times

    def distribution(self, name: str, *, note: str = "") -> Distribution:
        """Return the classes from the first to the last that is not empty."""
        used = [i for i, count in enumerate(self._counts) if count]
        places = range(used[0], used[-1] + 1) if used else range(0)
        bars = tuple(Bar(value=self._label(i), count=self._counts[i]) for i in places)
        return Distribution(name=name, bars=bars, note=note)

    def _label(self, i: int) -> str:
        unit = f" {self._unit}" if self._unit else ""
        if i == 0:
            return f"< {self._edges[0]:g}{unit}"
        if i == len(self._edges):
            return f"≥ {self._edges[-1]:g}{unit}"
        return f"{self._edges[i - 1]:g}–{self._edges[i]:g}{unit}"


def common_first(
    name: str, counts: Mapping[str, int], *, note: str = "", limit: int = MAX_BARS
) -> Distribution:
    """Return the commonest values, the others as one bar."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    bars = [Bar(value=value or "not known", count=count) for value, count in ranked[:limit]]
    if len(ranked) > limit:
        rest = sum(count for _, count in ranked[limit:])
        bars.append(Bar(value=f"{len(ranked) - limit} others", count=rest))
    return Distribution(name=name, bars=tuple(bars), note=note)


def in_order(name: str, counts: Counter[str], *, note: str = "") -> Distribution:
    """Return the values in their own order."""
    bars = tuple(Bar(value=value, count=counts[value]) for value in sorted(counts))
    return Distribution(name=name, bars=bars, note=note)
