"""Fingerprints: what a video looks like, four times a second, so that a changed copy has nearly the same.

A picture's code is 64 signs: whether each of its 64 lowest frequencies (of the cosine transform, without the
mean) is positive. Brightness and contrast do not change signs, size and aspect are normalised away, bars are
cut off before, and of a mirrored picture the signs of the odd horizontal frequencies are turned. A copy that
was cropped looks like a part of its original, so each picture is coded in several views: whole, its middle,
and what is left when 5 % are cut off at some sides. S samples, V views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from longvila.curation.duplicates.bars import find_bars, steady, without_bars
from longvila.curation.sampling import SAMPLES_PER_S

VERSION = 1
BLANK = np.uint64(0)  # the code of a picture that shows nothing
NUM_BITS = 64
_SIDE = 64  # pixels in which a picture is transformed
_NUM_WAVES = 11  # per side, from the mean on
_BLANK_CONTRAST = 10.0  # standard deviation of the luma, of 255
_BARS_REACH = round(8 * SAMPLES_PER_S)
_BATCH = 64
_FREQUENCIES = sorted(
    ((down, right) for down in range(_NUM_WAVES) for right in range(_NUM_WAVES) if down + right),
    key=lambda pair: (sum(pair), abs(pair[0] - pair[1]), pair),
)[:NUM_BITS]
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


class Box(NamedTuple):
    """The part of a picture that is coded: what is cut off at each side, as a share of it."""

    top: float = 0.0
    bottom: float = 0.0
    left: float = 0.0
    right: float = 0.0

    @property
    def cut(self) -> float:
        """The share of a side that is cut off, at most."""
        return round(max(self.top + self.bottom, self.left + self.right), 3)


_CUTS = ((0.0, 0.0), (0.0, 0.05), (0.025, 0.025), (0.05, 0.0))
_MIDDLES = (Box(), Box(0.025, 0.025, 0.025, 0.025), Box(0.05, 0.05, 0.05, 0.05))
VIEWS = tuple(dict.fromkeys([*_MIDDLES, *(Box(*down, *across) for down in _CUTS for across in _CUTS)]))
NUM_SEARCHED = len(_MIDDLES)  # views by which videos are looked up; the others are tried on what was found


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
            codes = np.stack([code_picture(picture) for picture in pictures])
            codes[[float(picture.std()) < _BLANK_CONTRAST for picture in pictures]] = BLANK
            self._codes.append(codes)
        keep = max(0, stop - _BARS_REACH)
        self._waiting = self._waiting[keep:]
        self._coded = stop - keep


def code_picture(grey_HW: np.ndarray) -> np.ndarray:
    """Return the codes of one picture (luma, uint8) in every view, uint64 ``[V]``."""
    small = cv2.resize(grey_HW, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    spectrum = _WAVES @ small @ _WAVES.T
    return np.packbits(spectrum.ravel()[_PLACES] > 0, axis=1, bitorder="little").view(np.uint64)[:, 0]


def _waves(before: float, after: float) -> np.ndarray:
    """The waves of a part of a side, integrated over each of its pixels, float32 ``[_NUM_WAVES, _SIDE]``."""
    start, stop = _SIDE * before, _SIDE * (1 - after)
    edges = (np.clip(np.arange(_SIDE + 1), start, stop) - start) / (stop - start)
    phases = np.pi * np.arange(1, _NUM_WAVES)[:, None] * edges[None, :]
    return np.diff(np.concatenate([edges[None, :], np.sin(phases)]), axis=1).astype(np.float32)


# All parts of a side at once; where in the product of both sides' waves the frequencies of each view lie.
_PARTS = list(dict.fromkeys([view[:2] for view in VIEWS] + [view[2:] for view in VIEWS]))
_WAVES = np.concatenate([_waves(*part) for part in _PARTS])
_PLACES = np.array(
    [
        [
            (_PARTS.index(view[:2]) * _NUM_WAVES + down) * len(_WAVES)
            + _PARTS.index(view[2:]) * _NUM_WAVES
            + right
            for down, right in _FREQUENCIES
        ]
        for view in VIEWS
    ]
)
