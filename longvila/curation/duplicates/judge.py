"""From pairs of videos that share something to what is kept, what is rejected, and in which words."""

from __future__ import annotations

from collections.abc import Sequence

from longvila.curation.duplicates.find import rank
from longvila.curation.duplicates.pairs import DuplicatePair, Passage
from longvila.curation.duplicates.protected import Named
from longvila.records import Rejection, VideoRecord, content_id

STEP = "dedup"
_NAMED = 3  # pairs and passages that a sentence tells of


def judge(
    videos: Sequence[VideoRecord], pairs: Sequence[DuplicatePair]
) -> tuple[list[VideoRecord], list[Rejection]]:
    """Return the videos that are kept, in their order, and why the others are not.

    Every pair with ``rejects`` is a reason against its video. What is the same file as a kept one is a
    duplicate.
    """
    against: dict[str, list[DuplicatePair]] = {}
    for pair in pairs:
        if pair.rejects:
            against.setdefault(pair.source_id, []).append(pair)
    kept, rejections = [], []
    for video in videos:
        if video.source_id in against:
            rejections.append(_rejection(video, against[video.source_id]))
        else:
            kept.append(video)
    return kept, rejections


def exact_pairs(videos: Sequence[VideoRecord]) -> list[DuplicatePair]:
    """Pair every video with the best one that is the same file, byte for byte."""
    best: dict[str, VideoRecord] = {}
    pairs = []
    for video in sorted(videos, key=rank):
        first = best.setdefault(video.video_id, video)
        if first is not video:
            pairs.append(_whole(video, "exact", first.split, first.video_id, first.source_id))
    return pairs


def named_pairs(found: Sequence[Named]) -> list[DuplicatePair]:
    """Pair the videos that an evaluation list names with what it names."""
    return [
        _whole(named.video, "named", "evaluation", named.evaluation.evaluation_id, named.evaluation.name)
        for named in found
    ]


def _whole(video: VideoRecord, kind: str, against: str, other_id: str, other_name: str) -> DuplicatePair:
    return DuplicatePair.model_validate(
        {
            "pair_id": content_id("pair", kind, video.source_id, other_name),
            "video_id": video.video_id,
            "source_id": video.source_id,
            "other_video_id": other_id,
            "other_source_id": other_name,
            "kind": kind,
            "against": against,
            "share": 1.0,
            "other_share": 1.0,
            "share_together": 1.0,
            "shared_s": video.duration_s,
            "rejects": True,
        }
    )


def _rejection(video: VideoRecord, pairs: Sequence[DuplicatePair]) -> Rejection:
    """Put into words why a video is rejected, the gravest reason first."""
    evaluation = [pair for pair in pairs if pair.against == "evaluation"]
    exact = [pair for pair in pairs if pair.kind == "exact"]
    chosen = evaluation or exact or list(pairs)
    first = max(chosen, key=lambda pair: pair.share)
    if evaluation:
        reason, detail = "evaluation-leak", _leak(first)
    elif exact:
        reason, detail = "duplicate", f"the same file as {first.other_source_id}, byte for byte"
    elif first.against == "heldout" and video.split == "train":
        reason = "shared-with-heldout"
        detail = f"{_share(first.share)} of it is in the held-out {first.other_source_id}: {_passages(first)}"
    else:
        reason, detail = "near-duplicate", _copy(chosen, first)
    return Rejection(item_id=video.video_id, step=STEP, reason=reason, detail=detail, source=video.source_id)


def _leak(pair: DuplicatePair) -> str:
    if pair.kind == "named":
        return f"it is the evaluation video {pair.other_source_id}"
    return (
        f"it shares {pair.shared_s:.1f} s with the evaluation video {pair.other_source_id}: {_passages(pair)}"
    )


def _copy(pairs: Sequence[DuplicatePair], first: DuplicatePair) -> str:
    if len(pairs) == 1:
        return f"{_share(first.share)} of it is in {first.other_source_id}: {_passages(first)}"
    ordered = sorted(pairs, key=lambda pair: (-pair.share, pair.other_source_id))
    parts = [f"{_share(pair.share)} in {pair.other_source_id}" for pair in ordered[:_NAMED]]
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return f"{_share(first.share_together)} of it is in {len(ordered)} others: {', '.join(parts)}{more}"


def _passages(pair: DuplicatePair) -> str:
    told = [_span(passage) for passage in pair.passages[:_NAMED]]
    more = f" and {len(pair.passages) - _NAMED} more" if len(pair.passages) > _NAMED else ""
    return ", ".join(told) + more


def _span(passage: Passage) -> str:
    extras = [f"at {passage.speed:.2f} of its speed"] if abs(passage.speed - 1) > 0.02 else []
    extras += ["mirrored"] if passage.mirrored else []
    extras += [f"cropped by {abs(passage.cropped_share):.0%}"] if passage.cropped_share else []
    return (
        f"{passage.start_s:.1f}–{passage.stop_s:.1f} s is {passage.other_start_s:.1f}–"
        f"{passage.other_stop_s:.1f} s there" + "".join(f", {extra}" for extra in extras)
    )


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "a little"
