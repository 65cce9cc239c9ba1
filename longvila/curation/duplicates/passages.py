"""Passages that two videos share: stretches along a line in which picture after picture is the same.

What is near off the line as well (a fixed camera, the same room) says nothing of the time, so there the
pictures have to be equal and not only near. S samples of the one video, M of the other, J neighbours of a
sample.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from longvila.curation.duplicates.fingerprint import BLANK, MIRROR, NUM_BITS, VIEWS, Fingerprint
from longvila.curation.duplicates.lines import Line, fit
from longvila.curation.sampling import SAMPLES_PER_S

_WINDOW = round(3 * SAMPLES_PER_S)
_GOOD_SHARE = 0.7  # of a window's pictures
_FEW = 3  # clear pictures in a window, at least
_SHORTEST = round(2.5 * SAMPLES_PER_S)
_EQUAL_BITS = 3.0  # mean distance of pictures that are the same also where nothing moves
_CONTRAST_BITS = 3.0  # how much farther pictures are off the line, where something moves
_OFF_S = (-2.0, -1.0, 1.0, 2.0)
_STILL_BITS = 2
_TRIED = 120  # samples by which the best view is chosen
_FAR_BITS = 20  # how much a picture can say against a view
_STILL_SAMPLES = round(3 * SAMPLES_PER_S)
_OUTSIDE = 255
EVIDENCE_BITS = 42.0  # chance pairs about 2^40 shots of 15,000 videos
_ANOTHER_BITS = 8  # pictures farther apart are evidence of their own
_FREE_SHARE = 0.6  # of a code's bits are independent of the others


class View(NamedTuple):
    """How two pictures are compared: which view of each, and whether one is mirrored."""

    a: int
    b: int
    mirrored: bool

    def codes_of(self, a: Fingerprint) -> np.ndarray:
        """The codes of the one video as they are compared, uint64 [S]."""
        return a.codes[:, self.a] ^ (MIRROR if self.mirrored else BLANK)


class Shared(NamedTuple):
    """One passage: samples ``[start, stop)`` of one video, ``[other_start, other_stop)`` of the other."""

    start: int
    stop: int
    other_start: int
    other_stop: int
    line: Line
    view: View
    distance: float  # mean bits


def shared_passages(
    a: Fingerprint, b: Fingerprint, line: Line, view: View, *, max_distance: int
) -> list[Shared]:
    """Find the passages of ``a`` that lie in ``b`` along a line; none where the pictures are not the same."""
    line = _fitted(view.codes_of(a), a.clear, b, line, view, max_distance)
    clear_S, places_S = _facing(a, b, line)
    best = _best_view(a, b, clear_S, places_S, view)
    codes_S = best.codes_of(a)
    if best != view:
        view, line = best, _fitted(codes_S, a.clear, b, line, best, max_distance)
        clear_S, places_S = _facing(a, b, line)
    near_S = _along(codes_S, b, places_S, view, reach=1).min(axis=1)
    good_S = clear_S & (near_S <= max_distance)
    found = []
    for start, stop in _runs(_dense(good_S, clear_S)):
        inside = np.arange(start, stop)[good_S[start:stop]]
        if len(inside) < _FEW or inside[-1] + 1 - inside[0] < _SHORTEST:
            continue
        start, stop = int(inside[0]), int(inside[-1]) + 1
        if evidence_bits(codes_S[inside], _nearest(codes_S, b, places_S, view)[inside]) < EVIDENCE_BITS:
            continue
        on = float(near_S[inside].mean())
        if on > _EQUAL_BITS and _off_the_line(codes_S, b, line, view, inside) - on < _CONTRAST_BITS:
            continue
        other = np.clip([places_S[start], places_S[stop - 1] + 1], 0, len(b.codes))
        found.append(Shared(start, stop, int(other[0]), int(other[1]), line, view, on))
    return found


def evidence_bits(codes_K: np.ndarray, others_K: np.ndarray) -> float:
    """How unlikely it is that chance makes these pictures as near as they are, in bits.

    The first picture counts with all its bits. A later one counts with those in which it differs from the
    earlier ones, for what does not change comes from the same camera in the same place. So one still is worth
    at most 38 bits, however long it lasts, and a set that is returned to little more.
    """
    firsts: list[np.uint64] = []
    total, left_K = 0.0, np.ones(len(codes_K), dtype=bool)
    while total < EVIDENCE_BITS and left_K.any():
        first = codes_K[left_K.argmax()]
        like_K = left_K & (np.bitwise_count(codes_K ^ first) <= _ANOTHER_BITS)
        changed = min((first ^ earlier for earlier in firsts), key=np.bitwise_count, default=~BLANK)
        wrong = np.bitwise_count((codes_K[like_K] ^ others_K[like_K]) & changed).mean()
        total += _information(int(np.bitwise_count(changed)), float(wrong))
        firsts.append(first)
        left_K &= ~like_K
    return total


def _information(num_bits: int, wrong: float) -> float:
    """What it says that all but ``wrong`` of so many bits agree."""
    share = min(0.5, wrong / num_bits)
    noise = sum(part * np.log2(part) for part in (share, 1 - share) if part > 0)
    return _FREE_SHARE * num_bits * (1 + float(noise))


def weights(fingerprint: Fingerprint) -> np.ndarray:
    """How much each sample counts, float [S]: 1, or 0 where nothing is seen or has changed for some time."""
    codes_S = fingerprint.codes[:, 0]
    moved_S = np.zeros(len(codes_S), dtype=np.uint8)
    moved_S[:_STILL_SAMPLES] = NUM_BITS
    for back in range(1, _STILL_SAMPLES + 1):
        change = np.bitwise_count(codes_S[back:] ^ codes_S[:-back])
        moved_S[back:] = np.maximum(moved_S[back:], change)
    return (fingerprint.clear & (moved_S > _STILL_BITS)).astype(np.float64)


def _best_view(a: Fingerprint, b: Fingerprint, clear_S: np.ndarray, places_S: np.ndarray, view: View) -> View:
    """Try all parts of the one against the whole of the other, and return the view that fits best."""
    chosen = np.flatnonzero(clear_S)
    chosen = chosen[:: max(1, len(chosen) // _TRIED)]
    numbers = range(len(VIEWS))
    views = dict.fromkeys(
        [
            view,
            *(View(number, 0, view.mirrored) for number in numbers),
            *(View(0, number, view.mirrored) for number in numbers),
        ]
    )
    best, least = view, np.inf
    for tried in views:
        near = _along(tried.codes_of(a)[chosen], b, places_S[chosen], tried, reach=1).min(axis=1)
        mean = float(np.minimum(near, _FAR_BITS).mean()) if len(near) else 0.0
        if mean <= _EQUAL_BITS:
            return tried
        if mean < least - 0.5:
            best, least = tried, mean
    return best


def _fitted(
    codes_S: np.ndarray, clear_S: np.ndarray, b: Fingerprint, line: Line, view: View, max_distance: int
) -> Line:
    """Fit the line through the nearest pictures beside it."""
    reach = 4
    places_S = _facing_places(len(codes_S), line)
    near_SJ = _along(codes_S, b, places_S, view, reach=reach)
    # Where several neighbours are equally near (nothing moves), their middle tells most.
    ties_SJ = near_SJ == near_SJ.min(axis=1, keepdims=True)
    steps_J = np.arange(-reach, reach + 1)
    best_S = (ties_SJ * steps_J).sum(axis=1) / ties_SJ.sum(axis=1)
    use = clear_S & (near_SJ.min(axis=1) <= max_distance) & (ties_SJ.sum(axis=1) <= reach)
    times_s = np.flatnonzero(use) / SAMPLES_PER_S
    return fit(times_s, (places_S[use] + best_S[use]) / SAMPLES_PER_S, line)


def _facing_places(count: int, line: Line) -> np.ndarray:
    """Return the sample of the other video that faces each of ``count``; it may lie outside."""
    return np.round(line.at(np.arange(count) / SAMPLES_PER_S) * SAMPLES_PER_S).astype(np.int64)


def _facing(a: Fingerprint, b: Fingerprint, line: Line) -> tuple[np.ndarray, np.ndarray]:
    """Return which samples of a and the one that faces it in b both show something, and the facing ones."""
    places_S = _facing_places(len(a.codes), line)
    within_S = (places_S >= 0) & (places_S < len(b.codes))
    clear_S = a.clear & within_S
    clear_S[clear_S] = b.clear[places_S[clear_S]]
    return clear_S, places_S


def _along(
    codes_S: np.ndarray, b: Fingerprint, places_S: np.ndarray, view: View, *, reach: int
) -> np.ndarray:
    """Return the distances to the samples of b around the facing ones, uint8 [S, J]."""
    near_SJ = places_S[:, None] + np.arange(-reach, reach + 1)[None, :]
    within_SJ = (near_SJ >= 0) & (near_SJ < len(b.codes))
    others_SJ = b.codes[np.clip(near_SJ, 0, len(b.codes) - 1), view.b]
    distances_SJ = np.bitwise_count(codes_S[:, None] ^ others_SJ)
    distances_SJ[~within_SJ | (others_SJ == BLANK)] = _OUTSIDE
    return distances_SJ


def _nearest(codes_S: np.ndarray, b: Fingerprint, places_S: np.ndarray, view: View) -> np.ndarray:
    """Return the code of b that is nearest among the facing one and its neighbours, uint64 [S]."""
    best_S = _along(codes_S, b, places_S, view, reach=1).argmin(axis=1) - 1
    return b.codes[np.clip(places_S + best_S, 0, len(b.codes) - 1), view.b]


def _off_the_line(codes_S: np.ndarray, b: Fingerprint, line: Line, view: View, inside: np.ndarray) -> float:
    """How far the pictures are from those a second or two before and after the facing ones, in bits.

    Of these the nearest count: were the passage as good a second later, it would say nothing of the time.
    """
    means = []
    for shift_s in _OFF_S:
        places_S = _facing_places(len(codes_S), Line(line.speed, line.offset_s + shift_s))
        near_S = _along(codes_S, b, places_S, view, reach=1).min(axis=1)[inside]
        near_S = near_S[near_S != _OUTSIDE]
        if 2 * len(near_S) >= len(inside):
            means.append(float(near_S.mean()))
    return min(means, default=0.0)


def _dense(good_S: np.ndarray, clear_S: np.ndarray) -> np.ndarray:
    """Which samples lie in a window most of whose clear pictures are good."""
    width = min(_WINDOW, len(good_S))
    if not width:
        return good_S
    ones = np.ones(width, dtype=np.int64)
    num_good = np.convolve(good_S.astype(np.int64), ones, mode="valid")
    num_clear = np.convolve(clear_S.astype(np.int64), ones, mode="valid")
    dense = (num_good >= _GOOD_SHARE * num_clear) & (num_good >= min(_FEW, width))
    return np.convolve(dense.astype(np.int64), ones, mode="full") > 0


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
