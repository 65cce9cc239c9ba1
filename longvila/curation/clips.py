"""Join shots into clips of about one length; a shot is split only when it is longer than a clip may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from longvila.config.footage import ClipConfig
from longvila.records import Clip, Shot, content_id

VERSION = 1


def make_clips(shots: Sequence[Shot], config: ClipConfig) -> list[Clip]:
    """Make the clips of one video from its shots in order. The clips partition its time line.

    Shots shorter than ``min_s`` join a neighbour, neighbours join while together they stay within
    ``target_s``, and what is longer than ``max_s`` is split into equal parts.
    """
    clips: list[Clip] = []
    for group in _groups(shots, config):
        start_s, stop_s = group[0].start_s, group[-1].stop_s
        length_s = stop_s - start_s
        parts = math.ceil(length_s / config.target_s) if length_s > config.max_s else 1
        edges = [start_s + i * length_s / parts for i in range(parts)] + [stop_s]
        for first, last in pairwise(edges):
            inside = [shot for shot in group if shot.start_s < last and shot.stop_s > first]
            clips.append(_clip(inside, first, last, len(clips)))
    return clips


def _groups(shots: Sequence[Shot], config: ClipConfig) -> list[list[Shot]]:
    groups: list[list[Shot]] = []
    for shot in shots:
        if groups and _joins(groups[-1], shot, config):
            groups[-1].append(shot)
        else:
            groups.append([shot])
    return groups


def _joins(group: Sequence[Shot], shot: Shot, config: ClipConfig) -> bool:
    group_s = group[-1].stop_s - group[0].start_s
    shot_s = shot.stop_s - shot.start_s
    return min(group_s, shot_s) < config.min_s or group_s + shot_s <= config.target_s


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
