"""Which found boundaries are right: the rule of TRECVID's shot boundary task, a cut within one frame.

Every boundary is an interval of frames from the last of the old shot to the first of the new one. A found one is
right when it overlaps a true one, each used once; a true cut is widened by a frame on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.video.compose import Truth

CUT_TOLERANCE = 1
Interval = tuple[int, int]


class Counts(NamedTuple):
    """How many boundaries there are, were found, and are right."""

    true: int
    found: int
    right: int

    def __add__(self, other: object) -> Counts:
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def precision(self) -> float:
        """The share of the found ones that are right."""
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """The share of the true ones that were found."""
        return self.right / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.right / (self.true + self.found) if self.true + self.found else 1.0


def matched(truths: Sequence[Truth], found: Sequence[Interval]) -> list[int | None]:
    """Return for each true boundary the index of the nearest unused found one that overlaps it, or None."""
    used: set[int] = set()
    answers: list[int | None] = []
    for truth in truths:
        wider = CUT_TOLERANCE if truth.first_new - truth.last_old == 1 else 0
        first, last = truth.last_old - wider, truth.first_new + wider
        near = [i for i, (a, b) in enumerate(found) if i not in used and a < last and b > first]
        best = min(near, key=lambda i: abs(sum(found[i]) - truth.last_old - truth.first_new), default=None)
        if best is not None:
            used.add(best)
        answers.append(best)
    return answers


def count(truths: Sequence[Truth], found: Sequence[Interval]) -> Counts:
    """Count the boundaries of one video."""
    right = sum(index is not None for index in matched(truths, found))
    return Counts(len(truths), len(found), right)
