"""What the cascade measures of every frame: a few numbers that cost a tenth of decoding it.

F frames, K reaches. Pictures are 27 × 48 pixels for differences of neighbours, and 9 × 16 for slow change:
what moves a little inside the picture hardly shows there, what happens to all of the picture does.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

import cv2
import numpy as np

_COARSE = (9, 16)  # height, width
_BLOCK = 64  # frames whose slow signals are measured at once


class Signals(NamedTuple):
    """Numbers for each of F frames, float32. The first and the last one are taken to stay."""

    jump: np.ndarray  # [F] mean absolute difference to the frame before, 0 to 255
    lasting: (
        np.ndarray
    )  # [F] the same of the coarse pictures a little before and a little after; low for a flash
    luma: np.ndarray  # [F] mean, 0 to 255
    spread: np.ndarray  # [F] standard deviation of the luma
    change: np.ndarray  # [F, K] root mean square difference of the frames K before and K after
    bend: np.ndarray  # [F, K] how far the frame is from the mean of these two, as a share of their difference
    likeness: np.ndarray  # [F, K] correlation of the luma of these two, -1 to 1
    dip: np.ndarray  # [F, K] how much flatter it is than these two: 1 as their mean would be, 0 not at all


class SignalMeter:
    """Measures frame after frame. Memory grows by some sixty bytes a frame."""

    def __init__(self, reaches: tuple[int, ...], guard: int) -> None:
        self._reaches = reaches
        self._guard = guard  # frames between a boundary and what ``lasting`` compares
        self._quick = array("f")  # jump, luma, spread of each frame, one after another
        self._num_taken = 0
        self._num_measured = 0
        self._slow: list[np.ndarray] = []  # blocks [n, 1 + 4 K]
        self._coarse: list[np.ndarray] = []  # from the longest reach before the first unmeasured frame on
        self._last: np.ndarray | None = None

    @property
    def num_taken(self) -> int:
        """Frames taken."""
        return self._num_taken

    @property
    def num_measured(self) -> int:
        """Frames all of whose signals are known."""
        return self._num_measured

    @property
    def reach(self) -> int:
        """Frames after a frame that its signals need."""
        return max(*self._reaches, self._guard + 1)

    def add(self, picture_HW3: np.ndarray) -> None:
        """Take the next frame, RGB uint8 ``[27, 48, 3]``."""
        last = picture_HW3 if self._last is None else self._last
        jump = sum(cv2.mean(cv2.absdiff(picture_HW3, last))) / 3
        mean, spread = cv2.meanStdDev(cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2GRAY))
        self._quick.extend((jump, float(mean[0, 0]), float(spread[0, 0])))
        self._num_taken += 1
        coarse = cv2.resize(picture_HW3, _COARSE[::-1], interpolation=cv2.INTER_AREA)
        self._coarse += [coarse] * (self.reach + 1 if self._last is None else 1)
        self._last = picture_HW3
        if len(self._coarse) == 2 * self.reach + _BLOCK:
            self._measure()

    def finish(self) -> None:
        """Measure the last frames, as if the last one stayed."""
        missing = self.num_taken - self.num_measured
        if missing:
            self._coarse += [self._coarse[-1]] * (missing + 2 * self.reach - len(self._coarse))
            self._measure()

    def signals(self, start: int = 0) -> Signals:
        """Return the signals of the measured frames from ``start`` on."""
        stop = self.num_measured
        blocks, first = [], stop
        for block in reversed(self._slow):
            if first <= start:
                break
            blocks.append(block)
            first -= len(block)
        width = 1 + 4 * len(self._reaches)
        slow_FK = np.concatenate([np.zeros((0, width), np.float32), *reversed(blocks)])[
            max(0, start - first) :
        ]
        quick_F3 = np.array(self._quick[3 * start : 3 * stop], dtype=np.float32).reshape(-1, 3)
        slow = np.split(slow_FK[:, 1:], 4, axis=1)
        return Signals(quick_F3[:, 0], slow_FK[:, 0], quick_F3[:, 1], quick_F3[:, 2], *slow)

    def _measure(self) -> None:
        coarse = np.stack(self._coarse).astype(np.float32)
        count = len(coarse) - 2 * self.reach
        here = np.arange(self.reach, self.reach + count)
        flat = coarse.reshape(len(coarse), -1)
        lasting = np.abs(flat[here + self._guard] - flat[here - 1 - self._guard]).mean(axis=1)
        luma = coarse.mean(axis=3).reshape(len(coarse), -1)
        luma -= luma.mean(axis=1, keepdims=True)
        lengths = np.sqrt((luma**2).mean(axis=1)) + 0.1
        columns = [lasting]
        pairs = [(here - k, here + k) for k in self._reaches]
        changes = [np.sqrt(((flat[b] - flat[a]) ** 2).mean(axis=1)) for a, b in pairs]
        columns += changes
        for (a, b), change in zip(pairs, changes, strict=True):
            off = np.sqrt(((flat[here] - (flat[a] + flat[b]) / 2) ** 2).mean(axis=1))
            columns.append(off / (change + 1.0))
        together = [(luma[a] * luma[b]).mean(axis=1) for a, b in pairs]
        columns += [both / (lengths[a] * lengths[b]) for both, (a, b) in zip(together, pairs, strict=True)]
        for both, (a, b) in zip(together, pairs, strict=True):
            apart = np.sqrt((lengths[a] ** 2 + lengths[b] ** 2) / 2)
            mixed = np.sqrt(np.maximum(0.0, (apart**2 + both) / 2))
            columns.append((apart - lengths[here]) / (apart - mixed + 0.5))
        self._slow.append(np.stack(columns, axis=1).astype(np.float32))
        self._num_measured += count
        self._coarse = self._coarse[count:]
