"""PySceneDetect's adaptive and content detectors, with fades through black told from cuts.

They see hard cuts and fades only. H × W pixels, F frames.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from longvila.curation.shot_detection.boundary import Boundary

if TYPE_CHECKING:
    from scenedetect.detector import SceneDetector

BLACK_LUMA = 0.06  # mean of the picture, from 0 to 1
_MIN_BLACK_S = 0.12
_FADE_REACH_S = 0.4
_CLOCK = Fraction(1, 90_000)  # seconds; PySceneDetect counts in ticks


class PySceneDetect:
    """One of PySceneDetect's detectors; ``threshold`` is in its own units."""

    def __init__(
        self,
        kind: Literal["adaptive", "content"],
        *,
        threshold: float,
        min_shot_s: float,
        fps: float,
        times_F: np.ndarray,
        picture_shape: tuple[int, int],
    ) -> None:
        self.picture_shape = picture_shape
        self._detector = _make(kind, threshold, min_shot_s)
        self._fps = float(fps)
        self._cuts_s: list[float] = []
        self._times_F = times_F
        self._lumas: list[float] = []
        self._differences: list[float] = []
        self._last: np.ndarray | None = None

    def add(self, picture_HW3: np.ndarray) -> None:
        """Take the next frame."""
        from scenedetect.common import FrameTimecode, Timecode

        ticks = round(self._times_F[len(self._lumas)] / _CLOCK)
        timecode = FrameTimecode(Timecode(ticks, _CLOCK), self._fps)
        bgr_HW3 = cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2BGR)
        self._cuts_s += [found.seconds for found in self._detector.process_frame(timecode, bgr_HW3)]
        grey_HW = cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2GRAY)
        self._lumas.append(float(grey_HW.mean()) / 255.0)
        change = 0.0 if self._last is None else float(cv2.absdiff(grey_HW, self._last).mean()) / 255.0
        self._differences.append(change)
        self._last = grey_HW

    def boundaries(self) -> list[Boundary]:
        """Return cuts, and a fade for each black span between two pictures."""
        lumas_F = np.asarray(self._lumas)
        times_F = self._times_F[: len(lumas_F)]
        last = len(times_F) - 1
        blacks = _black_spans(times_F, lumas_F)
        found = [Boundary(a, b, "fade", 1.0) for a, b in blacks if a >= 0 and b <= last]
        for time_s in self._cuts_s:
            frame = int(np.abs(times_F - time_s).argmin())
            # Going to black and coming from it look like cuts; the black span is the boundary.
            if frame == 0 or any(first <= frame <= stop for first, stop in blacks):
                continue
            near = np.abs(times_F - times_F[frame]) <= _FADE_REACH_S
            kind = "fade" if lumas_F[near].min() < BLACK_LUMA else "cut"
            found.append(Boundary(frame - 1, frame, kind, self._differences[frame]))
        return sorted(found)


def _make(kind: Literal["adaptive", "content"], threshold: float, min_shot_s: float) -> SceneDetector:
    from scenedetect.detectors import AdaptiveDetector, ContentDetector

    if kind == "content":
        return ContentDetector(threshold=threshold, min_scene_len=float(min_shot_s))
    return AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=float(min_shot_s))


def _black_spans(times_F: np.ndarray, lumas_F: np.ndarray) -> list[tuple[int, int]]:
    """Return for each black span the frame before it and the first after it: -1 and F at the video's ends."""
    is_black = np.concatenate([[False], lumas_F < BLACK_LUMA, [False]])
    starts = np.flatnonzero(~is_black[:-1] & is_black[1:])
    stops = np.flatnonzero(is_black[:-1] & ~is_black[1:])
    return [
        (int(start) - 1, int(stop))
        for start, stop in zip(starts, stops, strict=True)
        if times_F[min(stop, len(times_F) - 1)] - times_F[start] >= _MIN_BLACK_S
    ]
