"""Fingerprints: what a video looks like, four times a second, so that a changed copy has nearly the same.

A picture's code is 64 signs: whether each of its 64 lowest frequencies (of the cosine transform, without the
mean) is positive. Brightness and contrast do not change signs, size and aspect are normalised away, bars are
cut off before, and of a mirrored picture the signs of the odd horizontal frequencies are turned. A copy that
was cropped looks like the middle of its original, so each picture is coded in three views: whole, and its
middle 95 and 90 %. S samples, V views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from longvila.curation.duplicates.bars import find_bars, steady, without_bars
from longvila.curation.sampling import SAMPLES_PER_S

VERSION = 1
VIEWS = (1.0, 0.95, 0.9)  # the middle part of the picture that is coded
BLANK = np.uint64(0)  # the code of a picture that shows nothing
NUM_BITS = 64
_SIDE = 32  # pixels in which a picture is transformed
_BLANK_CONTRAST = 10.0  # standard deviation of the luma, of 255
_BARS_REACH = round(8 * SAMPLES_PER_S)
_BATCH = 64
_FREQUENCIES = sorted(
    ((down, right) for down in range(11) for right in range(11) if down + right),
    key=lambda pair: (sum(pair), abs(pair[0] - pair[1]), pair),
)[:NUM_BITS]
_WAVES = np.cos(np.pi * np.arange(11)[:, None] * (np.arange(_SIDE)[None, :] + 0.5) / _SIDE)
_POWERS = np.uint64(1) << np.arange(NUM_BITS, dtype=np.uint64)
MIRROR = np.uint64(sum(1 << bit for bit, (_, right) in enumerate(_FREQUENCIES) if right % 2))


@dataclass(frozen=True)
class Fingerprint:
    """The codes of one video's pictures, ``SAMPLES_PER_S`` of them per second from 0."""

    codes: np.ndarray  # uint64 [S, V], BLANK where there is nothing to see

    @property
    def duration_s(self) -> float:
        """How long a time is covered."""
        return len(self.codes) / SAMPLES_PER_S

    @property
    def clear(self) -> np.ndarray:
        """Which samples show something, bool [S]."""
        return self.codes[:, 0] != BLANK


class _Waiting(NamedTuple):
    grey_HW: np.ndarray
    bars_4: np.ndarray
    blank: bool


class Fingerprinter:
    """Codes one picture after another; holds back as many as bars are looked for in."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._coded = 0  # of those waiting: kept only because later ones look back on them
        self._codes: list[np.ndarray] = []

    def add(self, grey_HW: np.ndarray) -> None:
        """Take the next sample: luma, uint8, of any size from some 60 pixels a side on."""
        blank = float(grey_HW.std()) < _BLANK_CONTRAST
        self._waiting.append(_Waiting(grey_HW, find_bars(grey_HW), blank))
        if len(self._waiting) - self._coded >= _BATCH + _BARS_REACH:
            self._code(len(self._waiting) - _BARS_REACH)

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of all that was added."""
        self._code(len(self._waiting))
        empty = np.zeros((0, len(VIEWS)), dtype=np.uint64)
        return Fingerprint(np.concatenate([empty, *self._codes]))

    def _code(self, stop: int) -> None:
        """Code those that wait up to ``stop``, and let go of what no later one looks back on."""
        if stop > self._coded:
            bars = np.stack([item.bars_4 for item in self._waiting])
            blank = np.array([item.blank for item in self._waiting])
            found = steady(bars, blank, self._coded, stop, reach=_BARS_REACH)
            pictures = [
                without_bars(item.grey_HW, bars_4)
                for item, bars_4 in zip(self._waiting[self._coded : stop], found, strict=True)
            ]
            codes = np.stack([code_pictures(pictures, view) for view in VIEWS], axis=1)
            codes[[float(picture.std()) < _BLANK_CONTRAST for picture in pictures]] = BLANK
            self._codes.append(codes)
        keep = max(0, stop - _BARS_REACH)
        self._waiting = self._waiting[keep:]
        self._coded = stop - keep


def code_pictures(pictures: list[np.ndarray], view: float = 1.0) -> np.ndarray:
    """Return the codes of the middle of pictures (luma, uint8), uint64 ``[len(pictures)]``."""
    small = np.stack([_small(picture, view) for picture in pictures])
    waves = _WAVES.astype(np.float32)
    spectrum = waves @ small @ waves.T
    rows, columns = zip(*_FREQUENCIES, strict=True)
    signs = spectrum[:, list(rows), list(columns)] > 0
    return (signs * _POWERS).sum(axis=1, dtype=np.uint64)


def _small(grey_HW: np.ndarray, view: float) -> np.ndarray:
    """The middle of a picture as float32 ``[_SIDE, _SIDE]``."""
    height, width = grey_HW.shape
    down, right = round(height * (1 - view) / 2), round(width * (1 - view) / 2)
    middle = grey_HW[down : height - down, right : width - right]
    return cv2.resize(middle, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
