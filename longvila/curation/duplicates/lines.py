"""Whether near pictures of two videos lie on a line: the same scenes, in the same order, at one speed.

A copy that begins later and runs at another speed shows at time a what its original shows at ``speed · a +
offset``. Chance never strings many pictures on such a line; a shared picture here and there does not make
one. K hits at times a and b, R speeds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SPEEDS = np.round(np.arange(0.8, 1.2501, 0.025), 3)
_NEAR_S = 1.5  # from a line whose speed is only roughly known
_CLOSE_S = 0.75  # from one that was fitted
_SPEED_FROM_S = 8.0  # a shorter stretch of hits does not tell the speed


class Line(NamedTuple):
    """``b_s = speed * a_s + offset_s``"""

    speed: float
    offset_s: float

    def at(self, a_s: np.ndarray) -> np.ndarray:
        """Return the times in the other video."""
        return self.speed * a_s + self.offset_s


def best_line(a_s: np.ndarray, b_s: np.ndarray) -> tuple[Line, np.ndarray]:
    """Return the line that most of K hits (at the times a and b) lie on, and which do, bool [K]; K > 0."""
    line = _vote(a_s, b_s)
    for reach_s in (_NEAR_S, _NEAR_S, _CLOSE_S, _CLOSE_S):
        on = np.abs(b_s - line.at(a_s)) <= reach_s
        if not on.any():
            break
        line = fit(a_s[on], b_s[on], line)
    on = np.abs(b_s - line.at(a_s)) <= _NEAR_S
    return line, on if on.any() else np.ones(len(a_s), dtype=bool)


def fit(a_s: np.ndarray, b_s: np.ndarray, guess: Line) -> Line:
    """Fit a line through hits near ``guess``; its speed is kept where they do not tell one."""
    if len(a_s) < 3 or np.ptp(a_s) < _SPEED_FROM_S:
        return Line(guess.speed, float(np.median(b_s - guess.speed * a_s)) if len(a_s) else guess.offset_s)
    speed, _ = np.polyfit(a_s - a_s.mean(), b_s, 1)
    speed = float(np.clip(speed, SPEEDS[0], SPEEDS[-1]))
    return Line(speed, float(b_s.mean() - speed * a_s.mean()))


def _vote(a_s: np.ndarray, b_s: np.ndarray) -> Line:
    """Let hits vote for an offset at each speed; of equal ones the speed nearest to 1 wins."""
    offsets_RK = np.sort(b_s[None, :] - SPEEDS[:, None] * a_s[None, :], axis=1)
    best = (0, 0.0, Line(1.0, 0.0))
    for speed, offsets_K in zip(SPEEDS, offsets_RK, strict=True):
        stops = np.searchsorted(offsets_K, offsets_K + 2 * _CLOSE_S, side="right")
        votes = stops - np.arange(len(offsets_K))
        first = int(votes.argmax())
        offset_s = float(np.median(offsets_K[first : stops[first]]))
        best = max(best, (int(votes[first]), -abs(speed - 1.0), Line(float(speed), offset_s)))
    return best[2]
