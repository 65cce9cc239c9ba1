"""What can be said of how things move in a span: apart from the camera, and whether the view closes in.

As in ``longvila.curation.measure`` every verdict is a word, or None when the measurement lies between two.
S samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from longvila.curation.measure import Span
from longvila.curation.movement import EVERY

ZOOM = ("in", "out", "none")
MOVES = ("left", "right", "up", "down")
PLACES = ("left", "right", "top", "bottom", "middle")
SIZES = ("small", "large")

_MIN_COMPARED = 3
_FIT, _FIT_SHARE = 0.6, 0.7  # of the points to the camera's motion, and of the samples where that is so
_ZOOM_TOTAL, _ZOOM_NONE = 0.1, 0.02  # growth of the picture over the span
_ONE_WAY = 0.8  # of all motion, what is left when it is added up
_MIN_UNITY = 0.6
_MIN_PRESENT = 4  # compared samples with a mover
_MIN_TOTAL = 0.06  # picture widths over the span
_AXIS_LEAD = 2.0  # times more along one axis than along the other
_SIDE, _MIDDLE = (0.38, 0.62), (0.33, 0.67)
_ALL_THE_WHILE = 0.7  # of the compared samples, or where it is the rest of the time is not known
_SMALL, _LARGE = 0.02, 0.4  # of the picture


class ObjectMotion(NamedTuple):
    """The thing that moves most, apart from the camera."""

    direction: str
    place: str | None  # where it is all the while, where that is one place
    size: str | None
    samples: int


def zoom(span: Span) -> str | None:
    """Say whether the view closes in (the picture grows), draws out, or does neither, within one shot."""
    compared = _compared(span)
    camera_S4 = span.measures.camera[span.here][compared]
    trusted = camera_S4[:, 3] >= _FIT
    if len(camera_S4) < _MIN_COMPARED or trusted.mean() < _FIT_SHARE:
        return None
    growth_S = np.log1p(camera_S4[trusted, 2]) * EVERY
    total = float(growth_S.sum())
    if abs(total) <= _ZOOM_NONE and np.abs(growth_S).sum() <= 2 * _ZOOM_NONE:
        return "none"
    if abs(total) < _ZOOM_TOTAL or abs(total) < _ONE_WAY * float(np.abs(growth_S).sum()):
        return None
    return "in" if total > 0 else "out"


def object_motion(span: Span) -> ObjectMotion | None:
    """Say which way the largest thing moves against the rest of the picture, within one shot.

    None when nothing does, when it is too little to be sure, when it goes now this way and now that, and when
    the view closes in or draws out: near things then move against far ones.
    """
    if zoom(span) in ("in", "out"):
        return None
    compared = _compared(span)
    mover_S7 = span.measures.mover[span.here][compared]
    if len(mover_S7) < _MIN_COMPARED:
        return None
    present_P7 = mover_S7[mover_S7[:, 6] >= _MIN_UNITY]
    if len(present_P7) < _MIN_PRESENT:
        return None
    steps_P2 = present_P7[:, 4:6] * EVERY
    total_2 = steps_P2.sum(axis=0)
    length = float(np.linalg.norm(total_2))
    if length < _MIN_TOTAL or length < _ONE_WAY * float(np.linalg.norm(steps_P2, axis=1).sum()):
        return None
    direction = _direction(float(total_2[0]), float(total_2[1]))
    if direction is None:
        return None
    stays = len(present_P7) >= _ALL_THE_WHILE * len(mover_S7)
    place = _place(present_P7[:, 2:4]) if stays else None
    return ObjectMotion(direction, place, _size(present_P7[:, 1]), len(present_P7))


def _compared(span: Span) -> np.ndarray:
    """Which samples were compared with the one before, in a span of one shot; else none, bool [S]."""
    known = span.measures.camera[span.here][:, 3] > 0
    if any(span.start_s < cut < span.stop_s for cut in span.cuts_s):
        return np.zeros_like(known)
    return known & span.moving()


def _direction(right: float, down: float) -> str | None:
    if abs(right) >= _AXIS_LEAD * abs(down):
        return "right" if right > 0 else "left"
    if abs(down) >= _AXIS_LEAD * abs(right):
        return "down" if down > 0 else "up"
    return None


def _place(middles_P2: np.ndarray) -> str | None:
    """Return the side, or the middle, in which all of the middles lie."""
    low, high = middles_P2.min(axis=0), middles_P2.max(axis=0)
    for axis, (first, second) in enumerate((("left", "right"), ("top", "bottom"))):
        if high[axis] < _SIDE[0]:
            return first
        if low[axis] > _SIDE[1]:
            return second
    inside = (low > _MIDDLE[0]).all() and (high < _MIDDLE[1]).all()
    return "middle" if inside else None


def _size(boxes_P: np.ndarray) -> str | None:
    """Say how much of the picture it takes; of a plain thing only the edges are seen to move."""
    if float(boxes_P.max()) <= _SMALL:
        return "small"
    return "large" if float(np.median(boxes_P)) >= _LARGE else None
