"""Whether the picture of a video ever changes: hours of a title card, a cover with a song under it.

Pictures are compared as grids of mean brightness and colour, cell by cell, so that a single line of text that
appears on a slide is a change and the noise of an encoder is none. Most videos are told after two pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from longvila.media.opening import decode_past_damage, open_video
from longvila.media.probe import INDEXED_CONTAINERS, Probe

_GRID = (27, 48)  # height, width
_CHANGE = 6.0  # of 255, in any cell; what encoders make of a still picture stays below 3
_FEW, _MANY = 4, 64
_LARGEST = 16  # packets: a change of the picture makes a large one
_MAX_FRAMES = 3000
_MAX_ERRORS = 250
# Where too much would have to be decoded: a change makes a packet of more than this share of a key frame's.
_QUIET_SHARE = 0.02
_QUIET_BYTES = 200
_SETTLING_FRAMES = 60  # in which an encoder sharpens a still picture


def is_still(path: Path, facts: Probe) -> bool:
    """Whether all pictures that were looked at are the same.

    Looked at: the first, then three over the whole length; where those are the same, 64 more and those of the
    largest packets. Raises ``ItemError`` when the file cannot be decoded.
    """
    if facts.num_frames < 2:
        return True
    last = facts.num_frames - 1
    some = np.unique(np.linspace(0, last, _FEW).astype(int))
    first, verdict = None, None
    for targets in (some, _suspects(facts)):
        for picture in _pictures(path, facts, targets):
            if picture is None:
                verdict = _is_quiet(facts)
                break
            first = picture if first is None else first
            if np.abs(picture - first).max() > _CHANGE:
                return False
    return True if verdict is None else verdict


def _suspects(facts: Probe) -> np.ndarray:
    """The frames at which a change is most likely to be seen, as sorted indices."""
    last = facts.num_frames - 1
    sizes = facts.sizes.copy()
    sizes[np.searchsorted(facts.pts, facts.keyframe_pts)] = 0
    largest = np.argsort(sizes)[-_LARGEST:]
    keys = np.searchsorted(facts.pts, facts.keyframe_pts)
    keys = keys[np.unique(np.linspace(0, len(keys) - 1, _MANY).astype(int))]
    behind = np.minimum(np.concatenate([largest, largest + 1]), last)
    return np.unique(np.concatenate([behind, keys, np.linspace(0, last, _MANY // 4).astype(int)]))


def _pictures(path: Path, facts: Probe, targets: np.ndarray) -> Iterator[np.ndarray | None]:
    """Yield small pictures at about the frames ``targets``; None when that would take too much decoding."""
    keys = np.searchsorted(facts.pts, facts.keyframe_pts)
    budget, at = _MAX_FRAMES, 0
    with open_video(path, threads=1) as (container, stream):
        frames = decode_past_damage(container, stream, max_errors=_MAX_ERRORS)
        for target in targets.tolist():
            key = int(keys[max(0, np.searchsorted(keys, target, side="right") - 1)])
            if key > at and facts.is_exact and facts.container in INDEXED_CONTAINERS:
                container.seek(int(facts.pts[key]), stream=stream, backward=True)
                frames, at = decode_past_damage(container, stream, max_errors=_MAX_ERRORS), key
            budget -= max(0, target - at)
            if budget < 0:
                yield None
                return
            frame = None
            for frame in frames:
                at += 1
                if at > target or (
                    facts.is_exact and frame.pts is not None and frame.pts >= facts.pts[target]
                ):
                    break
            if frame is not None:
                yield frame.to_ndarray(
                    format="rgb24", height=_GRID[0], width=_GRID[1], interpolation="AREA"
                ).astype(np.float32)


def _is_quiet(facts: Probe) -> bool:
    """Whether no packet is large enough to change the picture, once the encoder has settled."""
    keys = np.searchsorted(facts.pts, facts.keyframe_pts)
    others = np.delete(facts.sizes, keys)[_SETTLING_FRAMES:]
    return bool(len(others)) and others.max() < _QUIET_SHARE * facts.sizes[keys].mean() + _QUIET_BYTES
