"""Which videos are in others: all pairs that have to be compared, in the order of rank.

Evaluation videos come first, then the held-out ones, then the longer ones. A video is compared only with
better ones that are kept, so a thousand copies of one are compared with that one. Of whole copies the one
with most pixels is kept in the end. Nothing depends on the order in which videos are given. S samples of a
video.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from longvila.config.sourcing import DedupConfig
from longvila.curation.duplicates.candidates import Candidates, find_candidates, gather
from longvila.curation.duplicates.fingerprint import Fingerprint
from longvila.curation.duplicates.hits import EXACT_BELOW
from longvila.curation.duplicates.pairs import (
    Comparison,
    DuplicatePair,
    PairKind,
    compare,
    part_of,
    to_passage,
)
from longvila.curation.duplicates.protected import EvaluationVideo
from longvila.curation.sampling import SAMPLES_PER_S
from longvila.records import VideoRecord, content_id

logger = logging.getLogger(__name__)

WHOLE = 0.9  # shares of both from which two videos are copies of one another
Progress = Callable[[int, int], None] | None


@dataclass
class _Found:
    """What was found so far."""

    kept: set[int] = field(default_factory=set)
    pairs: dict[int, list[DuplicatePair]] = field(default_factory=dict)


def find_pairs(
    videos: Sequence[VideoRecord],
    evaluation: Sequence[EvaluationVideo],
    fingerprints: Mapping[str, Fingerprint],
    config: DedupConfig,
    *,
    exact_below: int = EXACT_BELOW,
    progress: Progress = None,
) -> list[DuplicatePair]:
    """Find the pairs that share a passage; ``rejects`` says for which of them the video has to go.

    ``fingerprints`` are by video_id, and by evaluation_id. Videos that are the same file count once.
    """
    shown = sorted({e.evaluation_id: e for e in evaluation if e.key}.values(), key=lambda e: e.evaluation_id)
    different = {video.video_id: video for video in sorted(videos, key=rank, reverse=True)}
    ranked: list[VideoRecord | EvaluationVideo] = [*shown, *sorted(different.values(), key=rank)]
    if not config.near and not any(isinstance(i, EvaluationVideo) or is_heldout(i) for i in ranked):
        return []  # nothing to protect, and copies may stay
    pictures = gather((fingerprints[id_of(item)], _pictures_per_s(item, config)) for item in ranked)
    candidates = find_candidates(pictures, num_protected=len(shown), exact_below=exact_below)
    logger.info("%d pictures, %d pairs of videos to compare", len(pictures.codes), candidates.num_pairs)
    found = _Found(kept=set(range(len(shown))))
    for number in range(len(shown), len(ranked)):
        found.pairs[number] = _pairs_of(number, ranked, candidates, fingerprints, found.kept, config)
        rejected = any(pair.rejects for pair in found.pairs[number])
        if not rejected and (config.near or is_heldout(ranked[number])):
            found.kept.add(number)
        if progress:
            progress(number + 1 - len(shown), len(ranked) - len(shown))
    _keep_best_copies(ranked, found)
    return [pair for number in sorted(found.pairs) for pair in found.pairs[number]]


def is_heldout(item: VideoRecord | EvaluationVideo) -> bool:
    """Whether a video is one of the held-out split."""
    return isinstance(item, VideoRecord) and item.split == "heldout"


def rank(video: VideoRecord) -> tuple[bool, float, int, str, str]:
    """Sort held-out videos first, then the longer, then those with more pixels."""
    pixels = video.width * video.height
    return video.split != "heldout", -video.duration_s, -pixels, video.video_id, video.source_id


def id_of(item: VideoRecord | EvaluationVideo) -> str:
    """What an item's fingerprint is known by."""
    return item.evaluation_id if isinstance(item, EvaluationVideo) else item.video_id


def _pictures_per_s(item: VideoRecord | EvaluationVideo, config: DedupConfig) -> float:
    """Of what must not leak every sample is looked up, so that a short passage is found."""
    protected = isinstance(item, EvaluationVideo) or is_heldout(item)
    return SAMPLES_PER_S if protected else config.frames_per_s


def _pairs_of(
    number: int,
    ranked: Sequence[VideoRecord | EvaluationVideo],
    candidates: Candidates,
    fingerprints: Mapping[str, Fingerprint],
    kept: set[int],
    config: DedupConfig,
) -> list[DuplicatePair]:
    """Compare a video with the kept ones before it, until it is known that it has to go."""
    video = ranked[number]
    assert isinstance(video, VideoRecord)
    ours = fingerprints[video.video_id]
    covered_S = np.zeros(len(ours.codes), dtype=bool)
    pairs = []
    for other_number, hits in candidates.of(number):
        if other_number not in kept:
            continue
        other = ranked[other_number]
        result = compare(
            ours,
            fingerprints[id_of(other)],
            hits,
            max_distance=config.max_distance,
            min_hits=candidates.min_hits,
        )
        if not result.passages:
            continue
        pair = make_pair(video, other, result)
        leaks = leaks_into(video, pair) and pair.shared_s >= config.leak_passage_s
        covered_S |= result.covered_S
        together = part_of(ours, covered_S)
        pairs.append(pair.model_copy(update={"rejects": leaks, "share_together": together}))
        if leaks or together >= WHOLE:
            break
    if pairs and pairs[-1].share_together >= config.max_share:
        together = pairs[-1].share_together
        pairs = [pair.model_copy(update={"rejects": True, "share_together": together}) for pair in pairs]
    return pairs


def leaks_into(video: VideoRecord, pair: DuplicatePair) -> bool:
    """Whether what a training video shares belongs to the held-out split or to the evaluation."""
    return video.split == "train" and pair.against in ("heldout", "evaluation")


def make_pair(video: VideoRecord, other: VideoRecord | EvaluationVideo, result: Comparison) -> DuplicatePair:
    """Put a comparison into a record."""
    is_evaluation = isinstance(other, EvaluationVideo)
    return DuplicatePair(
        pair_id=content_id("pair", video.video_id, id_of(other)),
        video_id=video.video_id,
        source_id=video.source_id,
        other_video_id=id_of(other),
        other_source_id=other.name if isinstance(other, EvaluationVideo) else other.source_id,
        kind=_kind(result.share, result.other_share),
        against="evaluation" if is_evaluation else other.split,
        share=result.share,
        other_share=result.other_share,
        share_together=result.share,
        shared_s=result.shared_s,
        passages=tuple(to_passage(shared) for shared in result.passages),
    )


def _kind(share: float, other_share: float) -> PairKind:
    if min(share, other_share) >= WHOLE:
        return "copy"
    return "excerpt" if share >= WHOLE else "overlap"


def _keep_best_copies(ranked: Sequence[VideoRecord | EvaluationVideo], found: _Found) -> None:
    """Of a kept video and its whole copies keep the one with most pixels."""
    places = {id_of(item): number for number, item in enumerate(ranked)}
    copies: dict[int, list[int]] = {}
    for number, pairs in found.pairs.items():
        rejecting = [pair for pair in pairs if pair.rejects]
        if len(rejecting) == 1 and rejecting[0].kind == "copy" and rejecting[0].against == "train":
            copies.setdefault(places[rejecting[0].other_video_id], []).append(number)
    for leader, numbers in copies.items():
        best = min([leader, *numbers], key=lambda number: (-_pixels(ranked[number]), number))
        if best != leader:
            turned = next(pair for pair in found.pairs[best] if pair.rejects).turned()
            found.pairs[best] = [pair for pair in found.pairs[best] if not pair.rejects]
            found.pairs[leader] = [*found.pairs[leader], turned]


def _pixels(item: VideoRecord | EvaluationVideo) -> int:
    return item.width * item.height if isinstance(item, VideoRecord) else 0
