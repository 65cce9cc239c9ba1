"""Bars around a picture: the black (or plain) edges that letterboxing and pillarboxing add.

A bar is an edge whose rows (or columns) all have one level. What looks like one in a single picture may be a
dark scene; so ``steady`` takes, over some seconds, the narrowest. Whatever is cut off by mistake is cut off a
copy too. F pictures, H × W pixels.
"""

from __future__ import annotations

import numpy as np

_LEVEL_STEP = 10  # of 255: how far a bar's pixels may be from its level
_ODD_SHARE = 0.12  # of an edge row may be something else: a logo, noise
_MIN_LEFT = 0.2  # of a side is left, at least


def find_bars(grey_HW: np.ndarray) -> np.ndarray:
    """Return how many rows and columns are bars: int64 (top, bottom, left, right)."""
    top, bottom = _edges(grey_HW)
    left, right = _edges(grey_HW[top : len(grey_HW) - bottom].T)
    return np.array([top, bottom, left, right], dtype=np.int64)


def steady(bars_F4: np.ndarray, blank_F: np.ndarray, first: int, stop: int, *, reach: int) -> np.ndarray:
    """Return the bars of pictures ``[first, stop)``: the narrowest of what is found within ``reach`` of each.

    Blank pictures do not count; where all around are blank, there is no bar.
    """
    found = []
    for i in range(first, stop):
        around = slice(max(0, i - reach), i + reach + 1)
        clear = bars_F4[around][~blank_F[around]]
        found.append(clear.min(axis=0) if len(clear) else np.zeros(4, dtype=np.int64))
    return np.array(found, dtype=np.int64).reshape(-1, 4)


def without_bars(grey_HW: np.ndarray, bars_4: np.ndarray) -> np.ndarray:
    """Cut the bars off."""
    top, bottom, left, right = (int(width) for width in bars_4)
    height, width = grey_HW.shape
    return grey_HW[top : height - bottom, left : width - right]


def _edges(grey_HW: np.ndarray) -> tuple[int, int]:
    """Return how many rows at the top and at the bottom are bars; none when hardly anything would be left."""
    top, bottom = _leading(grey_HW), _leading(grey_HW[::-1])
    if len(grey_HW) - top - bottom < _MIN_LEFT * len(grey_HW):
        return 0, 0
    return top, bottom


def _leading(grey_HW: np.ndarray) -> int:
    level = int(np.median(grey_HW[0]))
    if not _is_plain(grey_HW[:1], level)[0]:
        return 0
    plain_H = _is_plain(grey_HW, level)
    return len(grey_HW) if plain_H.all() else int(plain_H.argmin())


def _is_plain(rows_HW: np.ndarray, level: int) -> np.ndarray:
    """Which rows have that level nearly everywhere, bool [H]."""
    odd_HW = np.abs(rows_HW.astype(np.int16) - level) > _LEVEL_STEP
    return np.count_nonzero(odd_HW, axis=1) <= _ODD_SHARE * rows_HW.shape[1]
