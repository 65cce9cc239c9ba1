"""From a video file to the frames that a model is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from longvila.errors import InputError, ItemError

if TYPE_CHECKING:
    from longvila.media import Probe

# F frames, H × W pixels.


class Looked(NamedTuple):
    """Which frames of a video are to be shown, before any is decoded."""

    video: Path
    facts: Probe
    times_s: tuple[float, ...]


def look(video: Path, *, frames: int, fps: float, start_s: float, stop_s: float | None) -> Looked:
    """Choose at most ``frames`` frames of ``[start_s, stop_s)``, and no more than ``fps`` per second.

    Raises InputError for a file that is no video and for a span that is empty or outside of it.
    """
    from longvila.media import probe  # whoever has frames already needs no decoder

    if frames < 1 or fps <= 0:
        raise InputError(f"frames={frames}, fps={fps}: ask with at least 1 frame, and fps above 0")
    if not video.is_file():
        raise InputError(f"there is no video {video}. Name an existing file")
    with _watchable(video):
        facts = probe(video)
    stop = facts.duration_s if stop_s is None else min(stop_s, facts.duration_s)
    return Looked(video, facts, spread_times(start_s, stop, frames=frames, fps=fps))


def watch(looked: Looked, *, size: int) -> np.ndarray:
    """Decode the chosen frames to uint8 [F, H, W, 3], ``size`` pixels per side. Raises InputError."""
    from longvila.media import decode_frames

    with _watchable(looked.video):
        return decode_frames(looked.video, looked.times_s, size=size, facts=looked.facts)


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


@contextmanager
def _watchable(video: Path) -> Iterator[None]:
    """A bad file is one of many when a data set is built; here it is what the user asked about."""
    try:
        yield
    except ItemError as error:
        raise InputError(
            f"{video} cannot be watched: {error.detail.rstrip('.')}. Try it in a video player."
        ) from error
