"""What is measured of a video at regular times: light, colours, detail, motion, and a hash of the picture.

S samples at ``SAMPLES_PER_S``, 9 cells of a 3 × 3 grid row by row, C colour names, H × W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import imagehash
import numpy as np
from PIL import Image

from longvila.curation.colours import COLOURS, colour_map
from longvila.curation.movement import Tracker

SAMPLES_PER_S = 4.0
GRID = 3
_MEASURED = (36, 64)  # height and width in which colours are counted


@dataclass(frozen=True)
class Measures:
    """What was measured at each of S sample times."""

    times_s: np.ndarray  # float64 [S]
    luma: np.ndarray  # float32 [S, 9], mean luma of each cell, 0 to 1
    colours: np.ndarray  # float32 [S, 9, C], share of each cell's pixels
    contrast: np.ndarray  # float32 [S], standard deviation of the luma
    detail: np.ndarray  # float32 [S], mean luma step between neighbouring pixels
    hashes: np.ndarray  # uint64 [S], perceptual hash
    motion: np.ndarray  # float32 [S], mean luma difference to the sample before
    shift: np.ndarray  # float32 [S, 2], how far the picture moved right and down, in picture widths
    shift_trust: np.ndarray  # float32 [S], 0 to 1: how much of the picture moved so
    camera: np.ndarray  # float32 [S, 4], as movement.Camera, since the sample before; fit 0: not known
    mover: np.ndarray  # float32 [S, 7], as movement.Mover

    def between(self, start_s: float, stop_s: float) -> slice:
        """Return the slice of samples in ``[start_s, stop_s)``."""
        start, stop = np.searchsorted(self.times_s, [start_s - 1e-9, stop_s - 1e-9])
        return slice(int(start), int(stop))


class Sampler:
    """Measures one picture after another, as they come out of the decoder."""

    def __init__(self) -> None:
        self._rows: list[tuple[np.ndarray | float | int, ...]] = []
        self._last: np.ndarray | None = None
        self._window: np.ndarray | None = None
        self._tracker = Tracker()

    def add(self, picture_HW3: np.ndarray, grey_HW: np.ndarray) -> None:
        """Take the next sample: BGR and luma of the same small picture, uint8."""
        height, width = _MEASURED
        bgr_HW3 = cv2.resize(picture_HW3, (width, height), interpolation=cv2.INTER_AREA)
        luma_HW = cv2.cvtColor(bgr_HW3, cv2.COLOR_BGR2GRAY).astype(np.float32) / 255.0
        names_HW = colour_map(bgr_HW3[..., ::-1])
        grey = grey_HW.astype(np.float32) / 255.0
        detail = float(np.abs(np.diff(grey, axis=1)).mean() + np.abs(np.diff(grey, axis=0)).mean()) / 2
        motion, shift, trust = self._compare(grey)
        moved = self._tracker.add(grey_HW)
        code = imagehash.phash(Image.fromarray(grey_HW)).hash
        self._rows.append(
            (
                np.array([cell.mean() for cell in _cells(luma_HW)], dtype=np.float32),
                np.stack([_shares(cell) for cell in _cells(names_HW)]),
                float(luma_HW.std()),
                detail,
                int.from_bytes(np.packbits(code.ravel()).tobytes(), "big"),
                motion,
                shift,
                trust,
                np.array(moved.camera, dtype=np.float32),
                np.array(moved.mover, dtype=np.float32),
            )
        )
        self._last = grey

    def measures(self, times_s: np.ndarray) -> Measures:
        """Return what was measured of the samples taken, shown at ``times_s`` [S]."""
        kinds = {4: np.uint64}  # hashes; all others are float32
        columns = [
            np.array([row[i] for row in self._rows], dtype=kinds.get(i, np.float32)) for i in range(10)
        ]
        return Measures(times_s, *columns)

    def _compare(self, grey: np.ndarray) -> tuple[float, np.ndarray, float]:
        """Return motion, shift (right, down) and its trust against the sample before."""
        if self._last is None:
            return 0.0, np.zeros(2, dtype=np.float32), 0.0
        if self._window is None:
            self._window = cv2.createHanningWindow(grey.shape[::-1], cv2.CV_32F)
        # It multiplies its inputs by the window in place.
        (right, down), trust = cv2.phaseCorrelate(self._last.copy(), grey.copy(), self._window)
        shift = np.array([right / grey.shape[1], down / grey.shape[1]], dtype=np.float32)
        return float(np.abs(grey - self._last).mean()), shift, float(trust)


def _cells(picture_HW: np.ndarray) -> list[np.ndarray]:
    """Cut a picture into the nine cells, row by row."""
    return [cell for row in np.array_split(picture_HW, GRID) for cell in np.array_split(row, GRID, axis=1)]


def _shares(names: np.ndarray) -> np.ndarray:
    return (np.bincount(names.ravel(), minlength=len(COLOURS)) / names.size).astype(np.float32)
