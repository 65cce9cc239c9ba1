"""Near-duplicates among videos, and the proof that training and held-out videos share no picture.

Pictures are compared by perceptual hashes; blank ones (black, a fade) say nothing and are left aside. Every
picture is compared with every other, in blocks: a thousand hours at one picture per second take minutes.
M and N pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from longvila.config.sourcing import DedupConfig
from longvila.curation.sampling import SAMPLES_PER_S, Measures
from longvila.records import Record, Rejection, VideoRecord

VERSION = 1
STEP = "dedup"
_BLANK_CONTRAST = 0.04  # standard deviation of the luma
_BLOCK = 4096


class SharedPicture(Record):
    """A picture that a held-out and a training video have in common."""

    heldout_video_id: str
    heldout_time_s: float
    train_video_id: str
    train_time_s: float
    distance: int


class SplitReport(Record):
    """What was compared between the splits, and what they share."""

    num_train_pictures: int
    num_heldout_pictures: int
    nearest_distance: int | None  # in bits of 64; None when a split has no picture
    max_distance: int
    shared: tuple[SharedPicture, ...]


class Pictures(NamedTuple):
    """The pictures of one video that are not blank."""

    hashes: np.ndarray  # uint64 [N]
    times_s: np.ndarray  # float64 [N]


def pictures(measures: Measures, *, per_s: float) -> Pictures:
    """Take ``per_s`` pictures per second out of what was measured."""
    step = max(1, round(SAMPLES_PER_S / per_s))
    chosen = np.arange(0, len(measures.times_s), step)
    chosen = chosen[measures.contrast[chosen] >= _BLANK_CONTRAST]
    return Pictures(measures.hashes[chosen], measures.times_s[chosen])


def find_duplicates(
    videos: Sequence[VideoRecord], measured: Mapping[str, Measures], config: DedupConfig
) -> tuple[list[VideoRecord], list[Rejection]]:
    """Reject videos that are in another one, and training videos that share a picture with a held-out one.

    Of two, the held-out one is kept, else the one with more pixels, else the longer. ``measured`` is by
    video_id. The order of what is kept is that of ``videos``.
    """
    ranked = sorted(
        videos, key=lambda v: (v.split != "heldout", -v.width * v.height, -v.duration_s, v.source_id)
    )
    kept: dict[str, VideoRecord] = {}
    rejections: list[Rejection] = []
    for video in ranked:
        problem = _twin(video, kept, measured, config)
        if problem is None:
            kept[video.video_id] = video
        else:
            rejections.append(problem)
    chosen = {video.source_id for video in kept.values()}
    return [video for video in videos if video.source_id in chosen], rejections


def split_leakage(
    train: Mapping[str, Measures], heldout: Mapping[str, Measures], *, max_distance: int
) -> SplitReport:
    """Compare every measured picture of the held-out videos with every one of the training videos."""
    train_pictures = {name: pictures(found, per_s=SAMPLES_PER_S) for name, found in train.items()}
    heldout_pictures = {name: pictures(found, per_s=SAMPLES_PER_S) for name, found in heldout.items()}
    nearest: int | None = None
    shared: list[SharedPicture] = []
    for heldout_id, ours in heldout_pictures.items():
        for train_id, theirs in train_pictures.items():
            distances, places = nearest_in(ours.hashes, theirs.hashes)
            if len(distances):
                nearest = min(int(distances.min()), 64 if nearest is None else nearest)
            for i in np.flatnonzero(distances <= max_distance):
                shared.append(
                    SharedPicture(
                        heldout_video_id=heldout_id,
                        heldout_time_s=float(ours.times_s[i]),
                        train_video_id=train_id,
                        train_time_s=float(theirs.times_s[places[i]]),
                        distance=int(distances[i]),
                    )
                )
    return SplitReport(
        num_train_pictures=sum(len(p.hashes) for p in train_pictures.values()),
        num_heldout_pictures=sum(len(p.hashes) for p in heldout_pictures.values()),
        nearest_distance=nearest,
        max_distance=max_distance,
        shared=tuple(shared),
    )


def nearest_in(hashes_M: np.ndarray, others_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each of M hashes, the smallest distance to the N others and which one it is.

    Both are int64 [M]; empty when there is nothing to compare.
    """
    if not len(hashes_M) or not len(others_N):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    distances, places = [], []
    for start in range(0, len(hashes_M), _BLOCK):
        block = np.bitwise_count(hashes_M[start : start + _BLOCK, None] ^ others_N[None, :])
        places.append(block.argmin(axis=1))
        distances.append(block.min(axis=1))
    return np.concatenate(distances).astype(np.int64), np.concatenate(places)


def _twin(
    video: VideoRecord,
    kept: Mapping[str, VideoRecord],
    measured: Mapping[str, Measures],
    config: DedupConfig,
) -> Rejection | None:
    if video.video_id in kept:
        other = kept[video.video_id]
        return _rejection(video, "duplicate", f"the same file as {other.source_id}, byte for byte")
    if not config.near:
        return None
    ours = pictures(measured[video.video_id], per_s=config.frames_per_s)
    for other in kept.values():
        distances, _ = nearest_in(ours.hashes, measured[other.video_id].hashes)
        share = float((distances <= config.max_distance).mean()) if len(distances) else 0.0
        if share >= config.max_share:
            detail = f"{share:.0%} of its pictures are in {other.source_id}"
            return _rejection(video, "near-duplicate", detail)
        if share > 0 and other.split != video.split:
            detail = f"{share:.0%} of its pictures are in the held-out {other.source_id}"
            return _rejection(video, "shared-with-heldout", detail)
    return None


def _rejection(video: VideoRecord, reason: str, detail: str) -> Rejection:
    return Rejection(item_id=video.video_id, step=STEP, reason=reason, detail=detail, source=video.source_id)
