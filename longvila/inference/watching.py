"""From a video file to the frames that a model is shown."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from longvila.errors import InputError, ItemError

# F frames, H × W pixels.


class Shown(NamedTuple):
    """Frames uint8 [F, H, W, 3] and where in the video they are, in seconds."""

    times_s: tuple[float, ...]
    frames: np.ndarray


def watch(video: Path, *, frames: int, fps: float, start_s: float, stop_s: float | None, size: int) -> Shown:
    """Decode at most ``frames`` frames of ``[start_s, stop_s)``, and no more than ``fps`` per second.

    Raises InputError for a file that is no video and for a span that is empty or outside of it.
    """
    from longvila.media import decode_frames, probe  # whoever has frames already needs no decoder

    if frames < 1 or fps <= 0:
        raise InputError(f"frames={frames}, fps={fps}: ask with at least 1 frame, and fps above 0")
    if not video.is_file():
        raise InputError(f"there is no video {video}. Name an existing file")
    try:
        facts = probe(video)
        stop = facts.duration_s if stop_s is None else min(stop_s, facts.duration_s)
        times = spread_times(start_s, stop, frames=frames, fps=fps)
        return Shown(times, decode_frames(video, times, size=size, facts=facts))
    except ItemError as error:
        raise InputError(f"{video} cannot be watched: {error.detail} Try it in a video player.") from error


def spread_times(start_s: float, stop_s: float, *, frames: int, fps: float) -> tuple[float, ...]:
    """Return the times of at most ``frames`` frames in ``[start_s, stop_s)``: the middles of equal parts."""
    length = stop_s - start_s
    if start_s < 0 or length <= 0:
        raise InputError(
            f"the span from {start_s:g} s to {stop_s:g} s holds no frame. "
            "Give 0 ≤ start_s < stop_s, within the video"
        )
    count = max(1, min(frames, int(length * fps)))
    return tuple(start_s + (i + 0.5) * length / count for i in range(count))
