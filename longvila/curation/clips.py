"""Clips of about one length: parts of a shot, or a shot with neighbours that are too short for a clip.

A clip crosses a boundary of shots only to take up a shot shorter than ``min_s``. The clips of a video
partition its time line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from longvila.config.footage import ClipConfig
from longvila.records import Clip, Shot, content_id

VERSION = 2


def make_clips(shots: Sequence[Shot], config: ClipConfig) -> list[Clip]:
    """Make the clips of one video from its shots in order.

    Each shot of at least ``min_s`` makes its own clips, in equal parts of about ``target_s``, none longer
    than ``max_s``. Shorter ones next to one another become a clip, up to ``target_s``; what is still too
    short joins its shorter neighbour.
    """
    clips: list[Clip] = []
    for group in _groups(shots, config):
        for first, last in pairwise(_edges(group, config)):
            inside = [shot for shot in group if shot.start_s < last and shot.stop_s > first]
            clips.append(_clip(inside, first, last, len(clips)))
    return clips


def _groups(shots: Sequence[Shot], config: ClipConfig) -> list[list[Shot]]:
    """Put short shots that follow one another together, and what is still too short to a neighbour."""
    groups: list[list[Shot]] = []
    for shot in shots:
        if groups and _is_run(groups[-1], config) and _length(shot) < config.min_s:
            joined = shot.stop_s - groups[-1][0].start_s
            if joined <= config.target_s:
                groups[-1].append(shot)
                continue
        groups.append([shot])
    return _without_short(groups, config)


def _without_short(groups: list[list[Shot]], config: ClipConfig) -> list[list[Shot]]:
    kept: list[list[Shot]] = []
    carried: list[Shot] = []  # a short group that goes to the one after it
    for index, own in enumerate(groups):
        group = [*carried, *own]
        carried = []
        after = groups[index + 1] if index + 1 < len(groups) else None
        if _span(group) >= config.min_s or (not kept and after is None):
            kept.append(group)
        elif after is not None and (not kept or _span(after) <= _span(kept[-1])):
            carried = group
        else:
            kept[-1] += group
    return kept


def _is_run(group: Sequence[Shot], config: ClipConfig) -> bool:
    return all(_length(shot) < config.min_s for shot in group)


def _length(shot: Shot) -> float:
    return shot.stop_s - shot.start_s


def _span(group: Sequence[Shot]) -> float:
    return group[-1].stop_s - group[0].start_s


def _edges(group: Sequence[Shot], config: ClipConfig) -> list[float]:
    """Return where the clips of a group begin, and where the last ends."""
    start_s, stop_s, length_s = group[0].start_s, group[-1].stop_s, _span(group)
    about = min(math.floor(length_s / config.target_s + 0.5), math.floor(length_s / config.min_s))
    parts = max(1, about, math.ceil(length_s / config.max_s - 1e-9))
    return [start_s + i * length_s / parts for i in range(parts)] + [stop_s]


def _clip(shots: Sequence[Shot], start_s: float, stop_s: float, index: int) -> Clip:
    video_id = shots[0].video_id
    return Clip(
        clip_id=content_id("clip", VERSION, video_id, start_s, stop_s),
        video_id=video_id,
        index=index,
        start_s=start_s,
        stop_s=stop_s,
        shot_ids=tuple(shot.shot_id for shot in shots),
    )
