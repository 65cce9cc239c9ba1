"""What the signals of a video say by themselves: sure boundaries, and where only a closer look can tell.

F frames, K reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from longvila.curation.shot_detection.signals import Signals

_NETWORK_FPS = 25.0  # the rate of what TransNetV2 learned from


class Pace(NamedTuple):
    """Spans of time in frames of one video."""

    stride: int  # the closer look takes every so manyeth frame
    reaches: tuple[int, ...]  # of slow change
    guard: int
    near: int  # frames on either side that a cut has to stand out from

    @classmethod
    def of(cls, fps: float) -> Pace:
        """Return the spans at a frame rate."""
        return cls(
            stride=max(1, round(fps / _NETWORK_FPS)),
            reaches=tuple(max(2, round(fps * seconds)) for seconds in (0.125, 0.25, 0.5)),
            guard=max(2, round(fps * 0.08)),
            near=max(3, round(fps * 0.25)),
        )


@dataclass(frozen=True)
class Thresholds:
    """Where sure ends and doubtful begins. Differences are of 255."""

    sure_jump: float = 15.0
    sure_ratio: float = 4.0
    doubtful_jump: float = 5.0
    doubtful_ratio: float = 1.5
    other_picture: float = 0.85  # a correlation above it: the same picture, brighter or darker
    sure_change: float = 25.0
    sure_bend: float = 0.3
    sure_likeness: float = 0.6
    doubtful_change: float = 10.0
    doubtful_bend: float = 0.42
    doubtful_likeness: float = 0.92
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
    stands_out = jump >= limits.doubtful_ratio * _mean_beside(jump, pace.near) + 2.0
    doubtful = peak & stands_out & (signals.lasting >= 0.3 * jump) & ~sure
    return sure, doubtful


def slow_changes(
    signals: Signals, pace: Pace, sure_cuts: np.ndarray, limits: Thresholds = THRESHOLDS
) -> tuple[np.ndarray, np.ndarray]:
    """Say for each frame whether it surely is within a dissolve, and whether it may be: bool ``[F]`` each."""
    other = sure_cuts | blanks(signals, limits)  # a hard cut bends by half, a fade by nothing
    away = np.stack([~_widened(other, reach + 1) for reach in pace.reaches], axis=1)
    sure = (
        (signals.change >= limits.sure_change)
        & (signals.bend <= limits.sure_bend)
        & (signals.likeness <= limits.sure_likeness)
        & away
    )
    doubtful = (
        (signals.change >= limits.doubtful_change)
        & (signals.bend <= limits.doubtful_bend)
        & (signals.likeness <= limits.doubtful_likeness)
        & away
    )
    return sure.any(axis=1), doubtful.any(axis=1)


def blanks(signals: Signals, limits: Thresholds = THRESHOLDS) -> np.ndarray:
    """Say which frames show nothing but black or white: bool ``[F]``."""
    plain = signals.spread < limits.blank_spread
    return plain & ((signals.luma < limits.black) | (signals.luma > limits.white))


def fade_ends(signals: Signals, start: int, stop: int, longest: int) -> tuple[int, int]:
    """Return the last frame before, and the first after, a fade whose blank frames are ``[start, stop)``."""
    spread = signals.spread
    first, last = start - 1, stop
    while first > max(0, start - longest) and spread[first - 1] > 1.02 * spread[first] + 0.2:
        first -= 1
    while last < min(len(spread) - 1, stop + longest) and spread[last + 1] > 1.02 * spread[last] + 0.2:
        last += 1
    return first, last


def dissolve_ends(signals: Signals, pace: Pace, start: int, stop: int) -> tuple[int, int]:
    """Return the last frame before, and the first after, a dissolve seen in the frames ``[start, stop)``."""
    reach = pace.reaches[0]
    change = signals.change[:, 0]
    peak = start + int(change[start:stop].argmax())
    first = last = peak
    while first > 0 and change[first - 1] >= 0.3 * change[peak]:
        first -= 1
    while last < len(change) - 1 and change[last + 1] >= 0.3 * change[peak]:
        last += 1
    first, last = first + reach // 2, last - reach // 2
    return (first, last) if last > first else (peak - 1, peak + 1)


def _beside(values: np.ndarray, reach: int) -> np.ndarray:
    """Return the values up to ``reach`` before and after each frame: ``[F, 2 reach]``, 0 where none is."""
    padded = np.pad(values, reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return np.delete(windows, reach, axis=1)


def _max_beside(values: np.ndarray, reach: int) -> np.ndarray:
    return _beside(values, reach).max(axis=1) if len(values) else values


def _mean_beside(values: np.ndarray, reach: int) -> np.ndarray:
    return _beside(values, reach).mean(axis=1) if len(values) else values


def _widened(flags: np.ndarray, reach: int) -> np.ndarray:
    return flags | (_max_beside(flags.astype(np.int8), reach) > 0)
