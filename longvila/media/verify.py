"""Decode the beginning, the middle and the end of a video, to know that it can be decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from longvila.errors import ItemError
from longvila.media.opening import decode_past_damage, open_video, shown_name
from longvila.media.probe import Probe

MAX_GROUP_FRAMES = 600
_MAX_ERRORS = 250
_NEAR_FRAMES = 3000  # so many are decoded without regret


def check_decodes(path: Path, facts: Probe, *, name: str | None = None, patient: bool = True) -> int:
    """Decode the first, the middle and the last group of pictures and return how many frames that were.

    Of a group not more than ``MAX_GROUP_FRAMES``. Where seeking leads past a group it is decoded from the
    start of the file, but in a long file only when ``patient``. Raises ``ItemError`` "undecodable" when
    frames are missing or damaged, "damaged" when packets are, "unseekable" when seeking misses them.
    """
    name = shown_name(name or path.name)
    if facts.damage_s is not None:
        raise ItemError(
            "damaged", f"{name}: a part of the file is missing or overwritten at {facts.damage_s:.2f} s"
        )
    groups = sorted({0, len(facts.keyframe_pts) // 2, len(facts.keyframe_pts) - 1})
    return sum(_check_group(path, facts, group, name, patient=patient) for group in groups)


def check_starts(path: Path, facts: Probe, *, name: str | None = None) -> int:
    """Decode some frames of the beginning, whatever their times, and return how many came out.

    For files whose times are not to be trusted before they are encoded anew. Raises as ``check_decodes``.
    """
    name = shown_name(name or path.name)
    if facts.damage_s is not None:
        raise ItemError(
            "damaged", f"{name}: a part of the file is missing or overwritten at {facts.damage_s:.2f} s"
        )
    wanted, found = min(facts.num_frames, 2 * facts.longest_group, MAX_GROUP_FRAMES), 0
    with open_video(path, name=name, threads=1) as (container, stream):
        for _ in decode_past_damage(container, stream, max_errors=_MAX_ERRORS):
            found += 1
            if found >= wanted:
                break
    if found < wanted / 2:
        raise ItemError("undecodable", f"{name}: of its first {wanted} frames {found} can be decoded")
    return found


def _check_group(path: Path, facts: Probe, group: int, name: str, *, patient: bool) -> int:
    keys = facts.keyframe_pts
    start = int(keys[group])
    stop = int(keys[group + 1]) if group + 1 < len(keys) else int(facts.pts[-1]) + 1
    wanted = facts.pts[(facts.pts >= start) & (facts.pts < stop)][:MAX_GROUP_FRAMES]
    missing = _missing(path, facts, wanted.tolist(), name, seek=group > 0)
    if missing and group > 0:
        # Containers without an index (MPEG program streams) may seek past the frame: then from the start.
        if not patient and np.searchsorted(facts.pts, start) > _NEAR_FRAMES:
            raise ItemError(
                "unseekable", f"{name}: seeking misses the frame at {_time_s(facts, start):.2f} s"
            )
        missing = _missing(path, facts, wanted.tolist(), name, seek=False)
    if missing:
        raise _undecodable(facts, missing[0], name, "cannot be decoded")
    return len(wanted)


def _missing(path: Path, facts: Probe, wanted: list[int], name: str, *, seek: bool) -> list[int]:
    """The time stamps of ``wanted`` for which no frame comes out."""
    found = set[int]()
    with open_video(path, name=name, threads=1) as (container, stream):
        if seek:
            container.seek(wanted[0], stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts is None or frame.pts < wanted[0]:
                continue
            if frame.is_corrupt:
                raise _undecodable(facts, frame.pts, name, "is damaged")
            found.add(frame.pts)
            if frame.pts >= wanted[-1]:
                break
    return [pts for pts in wanted if pts not in found]


def _undecodable(facts: Probe, pts: int, name: str, what: str) -> ItemError:
    return ItemError("undecodable", f"{name}: the frame at {_time_s(facts, pts):.2f} s {what}")


def _time_s(facts: Probe, pts: int) -> float:
    return float((pts - int(facts.pts[0])) * facts.time_base)
