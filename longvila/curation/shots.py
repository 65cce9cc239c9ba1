"""The shots of a video: what lies between the boundaries that a detector found.

They partition the video's time line: nothing is dropped, whatever the detector. F frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from longvila.config.footage import ShotConfig
from longvila.curation.shot_detection.boundary import Boundary, Transition
from longvila.records import Shot, content_id

VERSION = 2
_ROUNDING_S = 1e-6


class Cut(NamedTuple):
    """A boundary in time: the first moment of the new shot, in the middle of a gradual transition."""

    time_s: float
    transition: Transition
    score: float


def cut_times(found: Iterable[Boundary], times_F: np.ndarray) -> list[Cut]:
    """Say when the frames of boundaries are shown; ``times_F`` are the times of all frames in seconds."""
    return [Cut(float(times_F[b.frame]), b.transition, b.score) for b in sorted(found)]


def make_shots(video_id: str, duration_s: float, cuts: list[Cut], config: ShotConfig) -> list[Shot]:
    """Cut the time line ``[0, duration_s)`` into shots of at least ``min_shot_s``, or into one."""
    inside = _spaced(cuts, duration_s, config.min_shot_s)
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


def _spaced(cuts: list[Cut], duration_s: float, min_shot_s: float) -> list[Cut]:
    """Of cuts closer to one another than a shot may be short keep the surest; drop those near an end."""
    kept: list[Cut] = []
    least_s = min_shot_s - _ROUNDING_S
    for cut in sorted(cuts, key=lambda cut: (-cut.score, cut.time_s)):
        others = (0.0, duration_s, *(other.time_s for other in kept))
        if all(abs(cut.time_s - time_s) >= least_s for time_s in others):
            kept.append(cut)
    return sorted(kept)
