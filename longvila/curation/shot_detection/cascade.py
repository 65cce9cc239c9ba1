"""Ours: cheap signals of every frame settle most of a video, the network looks only where they cannot.

Memory is bounded: the last few seconds of pictures and some sixty bytes for every frame.
F frames, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from longvila.curation.shot_detection import rules
from longvila.curation.shot_detection.boundary import Boundary
from longvila.curation.shot_detection.network import INPUT_SHAPE, TransNetV2, shared_network
from longvila.curation.shot_detection.rules import Pace
from longvila.curation.shot_detection.runs import SURE, spans
from longvila.curation.shot_detection.signals import SignalMeter, Signals

WINDOW = 32  # frames of one look: nearly as good in its middle as the published 100
_TRUSTED = 8  # frames on either side of the middle
_EVERY = 64
_SURE_SLOW = 0.95  # the score of a dissolve that needs no look
_LIKELY_CUT = 0.25  # of the network's score, where the signals show a cut too


class Cascade:
    """Proposals from signals; ``network`` is called when the first doubtful frame turns up."""

    picture_shape: tuple[int, int] = INPUT_SHAPE

    def __init__(self, *, fps: float, network: Callable[[], TransNetV2] = shared_network) -> None:
        self._pace = Pace.of(fps)
        self._network = network
        self._meter = SignalMeter(self._pace.reaches, self._pace.guard)
        self._num_frames = 0
        self._look = (
            WINDOW // 2 + _TRUSTED
        ) * self._pace.stride  # frames after a doubtful one that a look needs
        margin = self._meter.reach + self._pace.near + _EVERY
        self._pictures = np.zeros((2 * self._look + 2 * margin + _EVERY, *INPUT_SHAPE, 3), dtype=np.uint8)
        self._judged = 0
        self._seen_until = 0  # frames before it have scores where they were doubtful
        self._looks: list[tuple[int, np.ndarray]] = []  # first frame, scores [2, n]

    @property
    def num_looks(self) -> int:
        """How often the network was asked."""
        return len(self._looks)

    def add(self, picture_HW3: np.ndarray) -> None:
        """Take the next frame."""
        self._pictures[self._num_frames % len(self._pictures)] = picture_HW3
        self._num_frames += 1
        self._meter.add(picture_HW3)
        ripe = min(self._meter.num_measured - self._pace.near, self._num_frames - self._look)
        if ripe >= self._judged + _EVERY:
            self._look_into(ripe)

    def boundaries(self) -> list[Boundary]:
        """Judge the last frames and return the boundaries."""
        if not self._num_frames:
            return []
        self._meter.finish()
        self._look_into(self._meter.num_measured)
        signals = self._meter.signals()
        scores_2F = np.full((2, self._num_frames), -1.0, dtype=np.float32)
        for first, scores in self._looks:
            scores_2F[:, first : first + scores.shape[1]] = scores
        return decide(signals, scores_2F, self._pace)

    def _look_into(self, stop: int) -> None:
        """Ask the network about the doubtful frames before ``stop``."""
        before = max(0, self._judged - self._meter.reach - self._pace.near)
        for frame in np.flatnonzero(doubtful(self._meter.signals(before), self._pace)) + before:
            if max(self._judged, self._seen_until) <= frame < stop:
                self._ask(int(frame))
        self._judged = stop

    def _ask(self, frame: int) -> None:
        """Score the frames from a little before ``frame`` on."""
        stride, half = self._pace.stride, WINDOW // 2
        middle = frame + (_TRUSTED - 4) * stride
        wanted = middle + stride * np.arange(-half, half)
        oldest = max(0, self._num_frames - len(self._pictures))
        inside = np.clip(wanted, oldest, self._num_frames - 1)
        scores = self._network().scores(self._pictures[inside % len(self._pictures)])
        trusted = np.stack(scores)[:, half - _TRUSTED : half + _TRUSTED].repeat(stride, axis=1)
        first = middle - _TRUSTED * stride
        self._seen_until = first + trusted.shape[1] - 2 * stride
        drop = max(0, -first)
        self._looks.append((first + drop, trusted[:, drop : self._num_frames - first]))


def doubtful(signals: Signals, pace: Pace) -> np.ndarray:
    """Say which frames need a closer look: bool ``[F]``."""
    signs = _signs(signals, pace)
    settled = np.zeros_like(signs.sure_slow)
    for start, stop in spans(signs.maybe_slow):
        settled[start:stop] = signs.sure_slow[start:stop].any()
    return signs.maybe_cut | (signs.maybe_slow & ~settled)


def decide(signals: Signals, scores_2F: np.ndarray, pace: Pace) -> list[Boundary]:
    """Put together what is sure and what the network said; ``scores_2F`` is -1 where it was not asked."""
    signs = _signs(signals, pace)
    cuts = [_cut(t, 1.0) for t in np.flatnonzero(signs.sure_cut)]
    slow: list[Boundary] = []
    less_sure: list[Boundary] = []
    for t in np.flatnonzero(signs.maybe_cut):
        score = float(scores_2F[0, max(0, t - 2) : t + 2].max())
        less_sure += [_cut(t, score)] if score > _LIKELY_CUT else []
    for start, stop in spans(signs.maybe_slow):
        sure = [(start + a, start + b) for a, b in spans(signs.sure_slow[start:stop])]
        slow += [_dissolve(a, b, len(signs.sure_cut), _SURE_SLOW) for a, b in sure]
        if not sure:
            score = float(scores_2F[1, start:stop].max())
            less_sure += [_dissolve(start, stop, len(signs.sure_cut), score)] if score > SURE else []
    kept: list[Boundary] = []
    for boundary in (*signs.fades, *cuts, *slow, *sorted(less_sure, key=lambda found: -found.score)):
        if not any(_overlap(boundary, other) for other in kept):
            kept.append(boundary)
    return sorted(kept)


class _Signs(NamedTuple):
    """What the signals say of each frame, bool ``[F]``, and the fades."""

    fades: list[Boundary]
    sure_cut: np.ndarray
    maybe_cut: np.ndarray
    sure_slow: np.ndarray
    maybe_slow: np.ndarray


def _signs(signals: Signals, pace: Pace) -> _Signs:
    fades, fading = rules.fades(signals, pace)
    sure_cut, maybe_cut = rules.cuts(signals, pace)
    sure_slow, maybe_slow = rules.slow_changes(signals, pace, sure_cut | fading)
    return _Signs(fades, sure_cut & ~fading, maybe_cut & ~fading, sure_slow, maybe_slow)


def _cut(frame: np.int64, score: float) -> Boundary:
    return Boundary(int(frame) - 1, int(frame), "cut", score)


def _dissolve(start: int, stop: int, num_frames: int, score: float) -> Boundary:
    return Boundary(max(0, start - 1), min(stop, num_frames - 1), "dissolve", score)


def _overlap(one: Boundary, other: Boundary) -> bool:
    return one.last_old < other.first_new and other.last_old < one.first_new
