"""What can be said of a span of video by measuring it, and whether it is clear enough to be said.

Every verdict is a word of a small closed set, or None when the measurement lies between two words. The edges
between words have a gap, so that nothing is stated that another decoder or a smaller picture would change.
S samples, C colour names; the grid has 3 × 3 cells, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from longvila.curation.colours import COLOURS
from longvila.curation.sampling import GRID, SAMPLES_PER_S, Measures

BRIGHTNESS = ("dark", "medium", "bright")
CHANGE = ("darker", "same", "brighter")
SIDES = ("left", "right", "top", "bottom")
PARTS = ("early", "middle", "late")
MOTION = ("still", "slow", "fast")
TEXTURE = ("smooth", "mixed", "fine")
DIRECTIONS = ("left", "right", "up", "down", "nowhere")
COUNTS = ("one", "two", "three", "four", "five", "many")
YES_NO = ("no", "yes")

# (below, above) each gap between two neighbouring words
_BRIGHTNESS_GAPS = ((0.43, 0.47), (0.58, 0.62))
_CHANGE_GAPS = ((-0.09, -0.035), (0.035, 0.09))
_MOTION_GAPS = ((0.011, 0.016), (0.032, 0.042))
_TEXTURE_GAPS = ((0.025, 0.029), (0.036, 0.04))
_MAIN_SHARE, _MAIN_LEAD = 0.24, 0.06  # of the picture, and before the next colour
_PLACED_SHARES = (0.06, 0.6)
_PLACE_PULL, _PLACE_LEAD = 0.3, 0.12  # of the colour's centre from the middle (0) to the edge cells (1)
_LIGHT_STEP, _LIGHT_LEAD = 0.12, 0.05
_PART_LEAD = 0.05
_SEEN_SHOT_S = 0.4  # of a shot inside the span, to be counted; less than _UNSEEN_SHOT_S is not seen
_UNSEEN_SHOT_S = 0.15
SAME_VIEW, _OTHER_VIEW = 10, 18  # bits of 64 in which the pictures' hashes differ
_OTHER_COLOURS = 0.35  # share of the picture that has another colour
_PAN_TRUST = 0.35
_PAN_TOTAL, _PAN_NONE = 0.12, 0.02  # picture widths over the span
_AXIS = np.array([-1.0, 0.0, 1.0])


@dataclass(frozen=True)
class Span:
    """The samples of ``[start_s, stop_s)`` of one video and the cuts inside it."""

    measures: Measures
    start_s: float
    stop_s: float
    cuts_s: tuple[float, ...]  # of the whole video

    @property
    def here(self) -> slice:
        """The slice of samples."""
        return self.measures.between(self.start_s, self.stop_s)

    def part(self, start: float, stop: float) -> Span:
        """Return a part of the span, given as shares of it."""
        length = self.stop_s - self.start_s
        return Span(self.measures, self.start_s + start * length, self.start_s + stop * length, self.cuts_s)

    @property
    def num_samples(self) -> int:
        """How many samples lie in the span."""
        return self.here.stop - self.here.start

    def luma(self) -> float:
        """Return the mean luma, 0 to 1."""
        return float(self.measures.luma[self.here].mean())

    def colour_shares(self) -> np.ndarray:
        """Return the share of each colour in the picture, float [C]."""
        return self.measures.colours[self.here].mean(axis=(0, 1))

    def shots(self) -> list[tuple[float, float]]:
        """Return the (start_s, stop_s) of the pieces of shots inside the span."""
        inside = [cut for cut in self.cuts_s if self.start_s < cut < self.stop_s]
        edges = [self.start_s, *inside, self.stop_s]
        return list(pairwise(edges))

    def moving(self) -> np.ndarray:
        """Return which samples can be compared with the one before: not across a cut, bool [samples here]."""
        times_s = self.measures.times_s[self.here]
        usable = times_s - self.start_s > 0.5 / SAMPLES_PER_S
        for cut in self.cuts_s:
            usable &= ~((times_s >= cut) & (times_s < cut + 1.0 / SAMPLES_PER_S))
        return usable


def brightness(span: Span) -> str | None:
    """Say dark, medium or bright."""
    return _word(span.luma(), _BRIGHTNESS_GAPS, BRIGHTNESS)


def main_colour(span: Span) -> str | None:
    """Say which colour covers most of the picture, when it leads clearly."""
    shares_C = span.colour_shares()
    second, first = np.sort(shares_C)[-2:]
    if first < _MAIN_SHARE or first - second < _MAIN_LEAD:
        return None
    return COLOURS[int(shares_C.argmax())]


def colour_place(span: Span, colour: str) -> str | None:
    """Say on which side of the picture most of a colour lies, when it is neither rare nor everywhere."""
    cells_9 = span.measures.colours[span.here][:, :, COLOURS.index(colour)].mean(axis=0)
    if not _PLACED_SHARES[0] <= cells_9.mean() <= _PLACED_SHARES[1]:
        return None
    shares = cells_9.reshape(GRID, GRID) / cells_9.sum()
    return _side(
        float(shares.sum(axis=0) @ _AXIS), float(shares.sum(axis=1) @ _AXIS), _PLACE_PULL, _PLACE_LEAD
    )


def lightest_side(span: Span) -> str | None:
    """Say which side of the picture is lighter than the one opposite, by more than the other pair differs."""
    cells = span.measures.luma[span.here].mean(axis=0).reshape(GRID, GRID)
    rightward = float(cells[:, -1].mean() - cells[:, 0].mean())
    downward = float(cells[-1].mean() - cells[0].mean())
    return _side(rightward, downward, _LIGHT_STEP, _LIGHT_LEAD)


def light_change(span: Span) -> str | None:
    """Say how the last quarter's luma compares with the first quarter's."""
    change = span.part(0.75, 1.0).luma() - span.part(0.0, 0.25).luma()
    return _word(change, _CHANGE_GAPS, CHANGE)


def part_of_extreme(span: Span, *, darkest: bool) -> str | None:
    """Say in which third the picture is darkest (or lightest)."""
    lumas = np.array([span.part(i / 3, (i + 1) / 3).luma() for i in range(3)])
    order = np.argsort(lumas if darkest else -lumas)
    if abs(lumas[order[0]] - lumas[order[1]]) < _PART_LEAD:
        return None
    return PARTS[int(order[0])]


def motion(span: Span) -> str | None:
    """Say how much moves, by the camera or before it, cuts aside."""
    amount = motion_amount(span)
    return None if amount is None else _word(amount, _MOTION_GAPS, MOTION)


def motion_amount(span: Span) -> float | None:
    """Return the mean luma difference over a quarter of a second inside shots; None with too few samples."""
    usable = span.moving()
    return float(span.measures.motion[span.here][usable].mean()) if usable.sum() >= 3 else None


def texture(span: Span) -> str | None:
    """Say how fine the picture's detail is: smooth for large plain areas, as in close views and sky."""
    return _word(float(span.measures.detail[span.here].mean()), _TEXTURE_GAPS, TEXTURE)


def shot_count(span: Span) -> str | None:
    """Say how many shots are seen; None when a piece of one at an edge is too short to say."""
    lengths = [stop - start for start, stop in span.shots()]
    if any(_UNSEEN_SHOT_S < length < _SEEN_SHOT_S for length in lengths):
        return None
    seen = sum(length >= _SEEN_SHOT_S for length in lengths)
    return COUNTS[min(seen, len(COUNTS)) - 1] if seen else None


def camera_direction(span: Span) -> str | None:
    """Say where the camera turns or travels within one shot; the picture moves the other way."""
    usable = span.moving()
    if any(span.start_s < cut < span.stop_s for cut in span.cuts_s) or usable.sum() < 4:
        return None
    trusted = usable & (span.measures.shift_trust[span.here] >= _PAN_TRUST)
    if trusted.sum() < 0.7 * usable.sum():
        return None
    right, down = -span.measures.shift[span.here][trusted].sum(axis=0)
    if max(abs(right), abs(down)) < _PAN_NONE:
        return "nowhere"
    side = _side(float(right), float(down), _PAN_TOTAL, _PAN_TOTAL / 2)
    return {"top": "up", "bottom": "down"}.get(side, side) if side else None


def view_returns(span: Span) -> tuple[str, tuple[tuple[float, float], ...]] | None:
    """Say whether a shot shows the view of an earlier one, not the one just before, and which two shots."""
    seen = [shot for shot in span.shots() if shot[1] - shot[0] >= _SEEN_SHOT_S]
    pairs = [(i, j) for j in range(len(seen)) for i in range(j - 1)]
    if not pairs:
        return None
    samples = [span.measures.between(*shot) for shot in seen]
    distances = [view_distance(span.measures, samples[i], samples[j]) for i, j in pairs]
    nearest = int(np.argmin(distances))
    if distances[nearest] <= SAME_VIEW:
        i, j = pairs[nearest]
        return "yes", (seen[i], seen[j])
    return ("no", tuple(seen)) if distances[nearest] >= _OTHER_VIEW else None


def hash_distances(first_M: np.ndarray, second_N: np.ndarray) -> np.ndarray:
    """Return in how many bits each of M hashes differs from each of N, int [M, N]."""
    different = np.bitwise_xor(first_M[:, None], second_N[None, :])
    return np.unpackbits(different[..., None].view(np.uint8), axis=-1).sum(axis=-1, dtype=np.int64)


def view_distance(measures: Measures, first: slice, second: slice) -> int:
    """Return how much the nearest two samples of two slices differ in structure: bits of 64.

    It is 64 when they differ in colour: hashes do not see that a white wall is not a red one.
    """
    codes = [measures.hashes[here] for here in (first, second)]
    if not len(codes[0]) or not len(codes[1]):
        return 64
    distances = hash_distances(*codes)
    i, j = np.unravel_index(int(distances.argmin()), distances.shape)
    colours = [measures.colours[here][k].mean(axis=0) for here, k in ((first, i), (second, j))]
    if float(np.abs(colours[0] - colours[1]).sum()) / 2 > _OTHER_COLOURS:
        return 64
    return int(distances[i, j])


def _word(value: float, gaps: Sequence[tuple[float, float]], words: Sequence[str]) -> str | None:
    """Return the word whose range holds ``value``; None in a gap."""
    for word, (below, above) in zip(words, gaps, strict=False):
        if value < below:
            return word
        if value < above:
            return None
    return words[len(gaps)]


def _side(rightward: float, downward: float, pull: float, lead: float) -> str | None:
    """Return the side that a vector points to, when it is long enough and not diagonal."""
    if max(abs(rightward), abs(downward)) < pull or abs(abs(rightward) - abs(downward)) < lead:
        return None
    if abs(rightward) > abs(downward):
        return "right" if rightward > 0 else "left"
    return "bottom" if downward > 0 else "top"
