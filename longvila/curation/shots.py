"""Where one shot ends and the next begins: hard cuts by PySceneDetect, and fades through black.

Dissolves are not looked for. The shots of a video partition its time line: nothing is dropped.
F frames.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from longvila.config.footage import ShotConfig
from longvila.records import Shot, content_id

if TYPE_CHECKING:
    from scenedetect.detector import SceneDetector

VERSION = 1
BLACK_LUMA = 0.06  # mean of the picture, from 0 to 1
_MIN_BLACK_S = 0.12
_FADE_REACH_S = 0.4


class Cut(NamedTuple):
    """A boundary: the first moment of the new shot."""

    time_s: float
    transition: Literal["cut", "fade"]
    score: float


class ShotFinder:
    """Takes the frames of one video in order, small, and knows the cuts at the end."""

    def __init__(self, config: ShotConfig, *, fps: float, time_base: Fraction) -> None:
        self._detector = _detector(config)
        self._fps = float(fps)
        self._time_base = time_base
        self._min_shot_s = config.min_shot_s
        self._cuts_s: list[float] = []
        self._times_s: list[float] = []
        self._lumas: list[float] = []
        self._differences: list[float] = []
        self._last: np.ndarray | None = None

    def add(self, ticks: int, picture_HW3: np.ndarray) -> np.ndarray:
        """Take the next frame, BGR uint8, ``ticks`` of the time base after the first; return its luma."""
        import cv2
        from scenedetect.common import FrameTimecode, Timecode

        timecode = FrameTimecode(Timecode(ticks, self._time_base), self._fps)
        self._cuts_s += [found.seconds for found in self._detector.process_frame(timecode, picture_HW3)]
        grey_HW = cv2.cvtColor(picture_HW3, cv2.COLOR_BGR2GRAY)
        self._times_s.append(float(ticks * self._time_base))
        self._lumas.append(float(grey_HW.mean()) / 255.0)
        change = 0.0 if self._last is None else float(cv2.absdiff(grey_HW, self._last).mean()) / 255.0
        self._differences.append(change)
        self._last = grey_HW
        return grey_HW

    def cuts(self) -> list[Cut]:
        """Return the cuts of all frames taken, in order, at least ``min_shot_s`` apart."""
        times_F = np.asarray(self._times_s)
        lumas_F = np.asarray(self._lumas)
        differences_F = np.asarray(self._differences)
        blacks = _black_spans(times_F, lumas_F)
        # Going to black and coming from it look like cuts to the detector; the picture's return is the one.
        found = [t for t in self._cuts_s if not any(first <= t <= stop for first, stop in blacks)]
        cuts = [Cut(stop, "fade", 0.0) for first, stop in blacks if first > 0 and stop < times_F[-1]]
        for time_s in found:
            near = np.abs(times_F - time_s) <= _FADE_REACH_S
            score = float(differences_F[np.argmin(np.abs(times_F - time_s))])
            kind = "fade" if lumas_F[near].min() < BLACK_LUMA else "cut"
            if all(abs(time_s - cut.time_s) >= self._min_shot_s for cut in cuts):
                cuts.append(Cut(time_s, kind, score))
        return sorted(cuts)


def make_shots(video_id: str, duration_s: float, cuts: list[Cut], config: ShotConfig) -> list[Shot]:
    """Cut the time line ``[0, duration_s)`` into shots; a last piece that is too short joins its shot."""
    inside = [cut for cut in cuts if config.min_shot_s <= cut.time_s <= duration_s - config.min_shot_s]
    starts = [Cut(0.0, "cut", 0.0), *inside]
    stops = [*(cut.time_s for cut in inside), duration_s]
    return [
        Shot(
            shot_id=content_id("shot", VERSION, video_id, start.time_s, stop_s),
            video_id=video_id,
            index=index,
            start_s=start.time_s,
            stop_s=stop_s,
            transition=start.transition if index else "start",
            score=start.score,
        )
        for index, (start, stop_s) in enumerate(zip(starts, stops, strict=True))
    ]


def _detector(config: ShotConfig) -> SceneDetector:
    from scenedetect.detectors import AdaptiveDetector, ContentDetector

    if config.detector == "content":
        return ContentDetector(threshold=config.threshold, min_scene_len=float(config.min_shot_s))
    return AdaptiveDetector(adaptive_threshold=config.threshold, min_scene_len=float(config.min_shot_s))


def _black_spans(times_F: np.ndarray, lumas_F: np.ndarray) -> list[tuple[float, float]]:
    """Return for each black span the time of the frame before it, and of the first frame seen after it.

    At the beginning the first is 0, at the end the second is the last frame's time.
    """
    is_black = np.concatenate([[False], lumas_F < BLACK_LUMA, [False]])
    starts = np.flatnonzero(~is_black[:-1] & is_black[1:])
    stops = np.flatnonzero(is_black[:-1] & ~is_black[1:])
    last = len(times_F) - 1
    return [
        (float(times_F[max(start - 1, 0)]), float(times_F[min(stop, last)]))
        for start, stop in zip(starts, stops, strict=True)
        if times_F[min(stop, last)] - times_F[start] >= _MIN_BLACK_S
    ]
