"""Two videos compared as a whole: the passages they share, and how much of each these are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from longvila.curation.duplicates.fingerprint import VIEWS, Fingerprint
from longvila.curation.duplicates.lines import best_line
from longvila.curation.duplicates.passages import Shared, View, shared_passages, weights
from longvila.curation.sampling import SAMPLES_PER_S
from longvila.records import Record, content_id

_FRUITLESS = 3  # lines without a passage end the search in one view
_MOST_HITS = 4000  # are looked at for one line
_NEW_SHARE = 0.5  # of a passage is not in one found before, or it tells nothing new


class ViewHits(NamedTuple):
    """Where single pictures of two videos are near in one view. K hits."""

    view: View
    a_s: np.ndarray  # float64 [K], seconds in the one video
    b_s: np.ndarray  # float64 [K], in the other
    equal_bits: int  # of all hits together, beyond what makes a hit: how well this view fits


PairKind = Literal["exact", "copy", "excerpt", "overlap", "named"]


class Passage(Record):
    """A stretch of a video that is also in another: ``other_s = speed * s + offset_s``."""

    start_s: float
    stop_s: float
    other_start_s: float
    other_stop_s: float
    offset_s: float
    speed: float
    mirrored: bool = False
    cropped_share: float = 0.0  # of a side; negative where the other one is the cropped one
    distance: float  # mean bits of 64 in which the pictures differ

    def turned(self) -> Passage:
        """The same passage seen from the other video."""
        return Passage(
            start_s=self.other_start_s,
            stop_s=self.other_stop_s,
            other_start_s=self.start_s,
            other_stop_s=self.stop_s,
            offset_s=round(-self.offset_s / self.speed, 3),
            speed=round(1 / self.speed, 4),
            mirrored=self.mirrored,
            cropped_share=-self.cropped_share,
            distance=self.distance,
        )


class DuplicatePair(Record):
    """Two videos that share something, and what became of it."""

    pair_id: str
    video_id: str
    source_id: str
    other_video_id: str
    other_source_id: str
    kind: PairKind
    against: Literal["train", "heldout", "evaluation"]
    share: float  # of the video, 0 to 1
    other_share: float  # of the other
    share_together: float  # of the video that is in any of the others
    shared_s: float
    rejects: bool = False  # the video has to go because of this
    passages: tuple[Passage, ...] = ()

    def turned(self) -> DuplicatePair:
        """The same pair seen from the other video."""
        return DuplicatePair(
            pair_id=content_id("pair", self.other_video_id, self.video_id),
            video_id=self.other_video_id,
            source_id=self.other_source_id,
            other_video_id=self.video_id,
            other_source_id=self.source_id,
            kind=self.kind,
            against=self.against,
            share=self.other_share,
            other_share=self.share,
            share_together=self.other_share,
            shared_s=sum(passage.other_stop_s - passage.other_start_s for passage in self.passages),
            rejects=self.rejects,
            passages=tuple(passage.turned() for passage in self.passages),
        )


class Comparison(NamedTuple):
    """What two videos share. S and M samples."""

    passages: tuple[Shared, ...]
    covered_S: np.ndarray  # bool, of the one
    share: float
    other_share: float

    @property
    def shared_s(self) -> float:
        """How long a time of the one video is in the other, seconds."""
        return float(self.covered_S.sum()) / SAMPLES_PER_S


def compare(
    a: Fingerprint, b: Fingerprint, hits: Iterable[ViewHits], *, max_distance: int, min_hits: int
) -> Comparison:
    """Find the passages of ``a`` in ``b``, given where single pictures are near.

    The view that fits best comes first; the others say only what of ``a`` is not found by then.
    """
    covered_S = np.zeros(len(a.codes), dtype=bool)
    others_M = np.zeros(len(b.codes), dtype=bool)
    chosen: list[Shared] = []
    for view, a_s, b_s, _ in sorted(hits, key=lambda found: (-found.equal_bits, found.view)):
        samples = np.round(a_s * SAMPLES_PER_S).astype(np.int64)
        fruitless = 0
        while fruitless < _FRUITLESS:
            left = np.flatnonzero(~covered_S[samples])[:_MOST_HITS]
            if len(np.unique(samples[left])) < min_hits:
                break
            line, on = best_line(a_s[left], b_s[left])
            found = _new(shared_passages(a, b, line, view, max_distance=max_distance), covered_S)
            for shared in found:
                covered_S[shared.start : shared.stop] = True
                others_M[shared.other_start : shared.other_stop] = True
            chosen += found
            fruitless = 0 if found else fruitless + 1
            keep = np.ones(len(samples), dtype=bool)
            keep[left[on]] = False
            samples, a_s, b_s = samples[keep], a_s[keep], b_s[keep]
    chosen.sort(key=lambda shared: (shared.start, shared.stop))
    return Comparison(tuple(chosen), covered_S, part_of(a, covered_S), part_of(b, others_M))


def part_of(fingerprint: Fingerprint, covered_S: np.ndarray) -> float:
    """Return which part of a video is covered; stills and black count little, see ``weights``."""
    weight_S = weights(fingerprint)
    return float(weight_S[covered_S].sum() / weight_S.sum()) if weight_S.any() else 0.0


def to_passage(shared: Shared) -> Passage:
    """Say a passage in seconds."""
    return Passage(
        start_s=shared.start / SAMPLES_PER_S,
        stop_s=shared.stop / SAMPLES_PER_S,
        other_start_s=shared.other_start / SAMPLES_PER_S,
        other_stop_s=shared.other_stop / SAMPLES_PER_S,
        offset_s=round(shared.line.offset_s, 3),
        speed=round(shared.line.speed, 4),
        mirrored=shared.view.mirrored,
        cropped_share=round(VIEWS[shared.view.b].cut - VIEWS[shared.view.a].cut, 3),
        distance=round(shared.distance, 2),
    )


def _new(found: Sequence[Shared], covered_S: np.ndarray) -> list[Shared]:
    """Leave out passages that are mostly in one found before."""
    return [shared for shared in found if covered_S[shared.start : shared.stop].mean() < 1 - _NEW_SHARE]
