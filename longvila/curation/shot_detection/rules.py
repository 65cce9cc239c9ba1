"""What the signals of a video say by themselves: sure boundaries, and where only a closer look can tell.

F frames, K reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from longvila.curation.shot_detection.boundary import Boundary
from longvila.curation.shot_detection.runs import spans
from longvila.curation.shot_detection.signals import Signals

_NETWORK_FPS = 25.0  # the rate of what TransNetV2 learned from


class Pace(NamedTuple):
    """Spans of time in frames of one video."""

    stride: int  # the closer look takes every so manyeth frame
    reaches: tuple[int, ...]  # of slow change
    guard: int
    near: int  # frames on either side that a cut has to stand out from
    brief: int  # the signs of a dissolve last longer
    longest_fade: int  # to black, or from it

    @classmethod
    def of(cls, fps: float) -> Pace:
        """Return the spans at a frame rate."""
        return cls(
            stride=max(1, round(fps / _NETWORK_FPS)),
            reaches=tuple(max(2, round(fps * seconds)) for seconds in (0.125, 0.25, 0.5)),
            guard=max(2, round(fps * 0.08)),
            near=max(3, round(fps * 0.25)),
            brief=max(2, round(fps * 0.14)),
            longest_fade=max(3, round(fps * 1.5)),
        )


@dataclass(frozen=True)
class Thresholds:
    """Where sure ends and doubtful begins. Differences are of 255."""

    sure_jump: float = 15.0
    sure_ratio: float = 4.0
    doubtful_jump: float = 6.0
    doubtful_ratio: float = 1.4
    other_picture: float = 0.85  # a correlation above it may be the same picture, brighter or darker
    same_picture: float = 0.93  # a correlation above it surely is
    sure_change: float = 25.0
    sure_bend: float = 0.3
    sure_likeness: float = 0.6
    doubtful_change: float = 14.0
    doubtful_bend: float = 0.42
    doubtful_likeness: float = 0.85
    least_dip: float = 0.5  # the mean of two pictures is flatter than either, what moves is not
    blank_spread: float = 3.5
    black: float = 24.0
    white: float = 232.0


THRESHOLDS = Thresholds()


def cuts(signals: Signals, pace: Pace, limits: Thresholds = THRESHOLDS) -> tuple[np.ndarray, np.ndarray]:
    """Say for each frame whether a shot surely begins with it, and whether one may: bool ``[F]`` each."""
    jump = signals.jump
    around = np.sort(_beside(jump, pace.near), axis=1)[:, -2]  # one more cut nearby is allowed
    peak = (jump >= _max_beside(jump, 2)) & (jump > limits.doubtful_jump)
    stays = signals.lasting >= 0.5 * jump
    other = signals.likeness[:, 0] < limits.other_picture
    sure = peak & (jump >= limits.sure_jump) & (jump >= limits.sure_ratio * around) & stays & other
    may_differ = signals.likeness[:, 0] < limits.same_picture
    stands_out = (jump >= limits.doubtful_ratio * around) & may_differ
    doubtful = peak & stands_out & (signals.lasting >= 0.3 * jump) & ~sure
    return sure, doubtful


def fades(signals: Signals, pace: Pace, limits: Thresholds = THRESHOLDS) -> tuple[list[Boundary], np.ndarray]:
    """Return the fades through black or white, and which frames belong to any: bool ``[F]``.

    A fade is one boundary, however long the screen stays blank. Where both edges are hard and the blank
    lasts, it is a shot between two cuts. A blink or a flash, after which the same picture is back, is no
    boundary, and neither is a fade at the beginning or the end of the video.
    """
    found = []
    num_frames = len(signals.spread)
    fading = np.zeros(num_frames, dtype=bool)
    for start, stop in spans(_blanks(signals, limits)):
        first, last = _fade_ends(signals.spread, start, stop, pace.longest_fade)
        is_hard = start - first <= 2 and last - stop <= 1
        if is_hard and stop - start >= pace.reaches[-1]:
            continue
        fading[max(0, first) : last + 1] = True
        if first >= 0 and last < num_frames and not _is_blink(signals, pace, first, last, limits):
            found.append(Boundary(first, last, "fade", 1.0))
    return found, fading


def slow_changes(
    signals: Signals, pace: Pace, taken: np.ndarray, limits: Thresholds = THRESHOLDS
) -> tuple[np.ndarray, np.ndarray]:
    """Say for each frame whether it surely is within a dissolve, and whether it may be: bool ``[F]`` each.

    ``taken`` marks frames that other boundaries explain: a hard cut seems to bend by half, a fade not at all.
    """
    away = np.stack([~_widened(taken, reach + 1) for reach in pace.reaches], axis=1)
    mixed = away & (signals.dip >= limits.least_dip)
    sure = (
        (signals.change >= limits.sure_change)
        & (signals.bend <= limits.sure_bend)
        & (signals.likeness <= limits.sure_likeness)
        & mixed
    )
    doubtful = (
        (signals.change >= limits.doubtful_change)
        & (signals.bend <= limits.doubtful_bend)
        & (signals.likeness <= limits.doubtful_likeness)
        & mixed
    )
    lasting = _long_spans(_closed(np.asarray(doubtful.any(axis=1))), pace.brief)
    return lasting & _long_spans(np.asarray(sure.any(axis=1)), pace.brief), lasting


def _blanks(signals: Signals, limits: Thresholds) -> np.ndarray:
    """Say which frames show nothing but black or white: bool ``[F]``."""
    plain = signals.spread < limits.blank_spread
    return plain & ((signals.luma < limits.black) | (signals.luma > limits.white))


def _fade_ends(spread: np.ndarray, start: int, stop: int, longest: int) -> tuple[int, int]:
    """Return the last frame before, and the first after, a fade whose blank frames are ``[start, stop)``."""
    first, last = start - 1, stop
    while first > max(0, start - longest) and spread[first - 1] > 1.02 * spread[first] + 0.2:
        first -= 1
    while last < min(len(spread) - 1, stop + longest) and spread[last + 1] > 1.02 * spread[last] + 0.2:
        last += 1
    return first, last


def _is_blink(signals: Signals, pace: Pace, first: int, last: int, limits: Thresholds) -> bool:
    """Say whether the picture after a blank is the one before it, as far as the reaches go."""
    middle = (first + last) // 2
    for k, reach in enumerate(pace.reaches):
        if middle - reach < first and middle + reach > last:
            same = signals.likeness[middle, k] > limits.other_picture
            return bool(same and signals.change[middle, k] < limits.sure_change)
    return False


def _beside(values: np.ndarray, reach: int) -> np.ndarray:
    """Return the values up to ``reach`` before and after each frame: ``[F, 2 reach]``, 0 where none is."""
    padded = np.pad(values, reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return np.delete(windows, reach, axis=1)


def _max_beside(values: np.ndarray, reach: int) -> np.ndarray:
    return _beside(values, reach).max(axis=1) if len(values) else values


def _widened(flags: np.ndarray, reach: int) -> np.ndarray:
    return flags | (_max_beside(flags.astype(np.int8), reach) > 0)


def _closed(flags: np.ndarray) -> np.ndarray:
    """Fill gaps of one or two frames."""
    filled = flags.copy()
    for start, stop in spans(~flags):
        if stop - start <= 2 and start > 0 and stop < len(flags):
            filled[start:stop] = True
    return filled


def _long_spans(flags: np.ndarray, brief: int) -> np.ndarray:
    """Keep the spans of more than ``brief`` frames."""
    kept = np.zeros_like(flags)
    for start, stop in spans(flags):
        kept[start:stop] = stop - start > brief
    return kept
