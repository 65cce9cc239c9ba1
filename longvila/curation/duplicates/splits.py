"""The proof that training and held-out videos share no passage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from longvila.config.sourcing import DedupConfig
from longvila.curation.duplicates.candidates import find_candidates, gather
from longvila.curation.duplicates.fingerprint import Fingerprint
from longvila.curation.duplicates.pairs import Passage, compare, to_passage
from longvila.curation.sampling import SAMPLES_PER_S
from longvila.records import Record, VideoRecord

_EVERY_PICTURE_BELOW = 4_000_000  # training pictures; beyond, as many per second as duplicates are found by
_NEAREST_BELOW = 200_000_000  # pairs of pictures whose distances are all measured
_BLOCK = 256


class SharedPassage(Record):
    """A passage that a held-out and a training video have in common."""

    heldout_video_id: str
    train_video_id: str
    passage: Passage  # of the training video; the other one is the held-out


class SplitReport(Record):
    """What was compared between the splits, and what they share."""

    num_train_pictures: int
    num_heldout_pictures: int
    nearest_distance: int | None  # in bits of 64; None when there were too many pictures to measure, or none
    max_distance: int
    shared: tuple[SharedPassage, ...]


def compare_splits(
    videos: Sequence[VideoRecord], fingerprints: Mapping[str, Fingerprint], config: DedupConfig
) -> SplitReport:
    """Compare the pictures of all held-out videos with those of all training videos."""
    heldout = sorted({video.video_id for video in videos if video.split == "heldout"})
    train = sorted({video.video_id for video in videos if video.split == "train"} - set(heldout))
    num_samples = sum(video.duration_s for video in videos) * SAMPLES_PER_S
    per_s = SAMPLES_PER_S if num_samples < _EVERY_PICTURE_BELOW else config.frames_per_s
    names = [*heldout, *train]
    rates = [SAMPLES_PER_S] * len(heldout) + [per_s] * len(train)
    pictures = gather((fingerprints[name], rate) for name, rate in zip(names, rates, strict=True))
    is_heldout = pictures.owners < len(heldout)
    candidates = find_candidates(pictures, num_protected=len(heldout), only_protected=True)
    shared = []
    for number in range(len(heldout), len(names)):
        for other, hits in candidates.of(number):
            ours, theirs = fingerprints[names[number]], fingerprints[names[other]]
            found = compare(
                ours, theirs, hits, max_distance=config.max_distance, min_hits=candidates.min_hits
            )
            if found.shared_s >= config.leak_passage_s:
                longest = max(found.passages, key=lambda passage: passage.stop - passage.start)
                shared.append(
                    SharedPassage(
                        heldout_video_id=names[other],
                        train_video_id=names[number],
                        passage=to_passage(longest),
                    )
                )
    codes = pictures.codes[:, 0]
    return SplitReport(
        num_train_pictures=int(np.count_nonzero(~is_heldout)),
        num_heldout_pictures=int(np.count_nonzero(is_heldout)),
        nearest_distance=nearest_distance(codes[is_heldout], codes[~is_heldout]),
        max_distance=config.max_distance,
        shared=tuple(shared),
    )


def nearest_distance(first_M: np.ndarray, second_N: np.ndarray) -> int | None:
    """Return the smallest distance of two pictures; None when there are none, or too many to measure."""
    if not len(first_M) or not len(second_N) or len(first_M) * len(second_N) > _NEAREST_BELOW:
        return None
    blocks = (first_M[start : start + _BLOCK, None] for start in range(0, len(first_M), _BLOCK))
    return min(int(np.bitwise_count(block ^ second_N[None, :]).min()) for block in blocks)
