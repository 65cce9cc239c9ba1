"""Decode the beginning, the middle and the end of a video, to know that it can be decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from longvila.errors import ItemError
from longvila.media.probe import Probe, open_video

_MAX_FRAMES = 600


def check_decodes(path: Path, facts: Probe) -> int:
    """Decode the first, the middle and the last group of pictures and return how many frames that were.

    Raises ``ItemError`` "undecodable" when frames are missing or damaged.
    """
    groups = sorted({0, len(facts.keyframe_pts) // 2, len(facts.keyframe_pts) - 1})
    return sum(_check_group(path, facts, group) for group in groups)


def _check_group(path: Path, facts: Probe, group: int) -> int:
    keys = facts.keyframe_pts
    start = int(keys[group])
    stop = int(keys[group + 1]) if group + 1 < len(keys) else int(facts.pts[-1]) + 1
    wanted = facts.pts[(facts.pts >= start) & (facts.pts < stop)][:_MAX_FRAMES]
    missing = _missing(path, facts, wanted, seek=group > 0)
    if missing and group > 0:
        # Containers without an index (MPEG program streams) may seek past the frame: then from the start.
        missing = _missing(path, facts, wanted, seek=False)
    if missing:
        raise _undecodable(path, facts, missing[0], "cannot be decoded")
    return len(wanted)


def _missing(path: Path, facts: Probe, wanted: np.ndarray, *, seek: bool) -> list[int]:
    """The time stamps of ``wanted`` for which no frame comes out."""
    start, found = int(wanted[0]), set[int]()
    with open_video(path) as (container, stream):
        if seek:
            container.seek(start, stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts is None or frame.pts < start:
                continue
            if frame.is_corrupt:
                raise _undecodable(path, facts, frame.pts, "is damaged")
            found.add(frame.pts)
            if frame.pts >= wanted[-1]:
                break
    return [pts for pts in wanted.tolist() if pts not in found]


def _undecodable(path: Path, facts: Probe, pts: int, what: str) -> ItemError:
    time_s = float(np.int64(pts) - facts.pts[0]) * float(facts.time_base)
    return ItemError("undecodable", f"{path.name}: the frame at {time_s:.2f} s {what}")
