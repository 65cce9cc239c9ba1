"""Fingerprints whose truth is known, made without any video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longvila.config.sourcing import DedupConfig
from longvila.curation.duplicates.find import find_pairs
from longvila.curation.duplicates.fingerprint import VIEWS, Fingerprint
from longvila.curation.duplicates.judge import exact_pairs, judge
from longvila.curation.duplicates.pairs import DuplicatePair
from longvila.curation.duplicates.protected import EvaluationVideo
from longvila.records import Rejection, VideoRecord

CONFIG = DedupConfig()


def moving(seed: int, seconds: float) -> np.ndarray:
    """Codes of something that moves: every second another picture, uint64 ``[4 * seconds]``."""
    rng = np.random.default_rng(seed)
    scenes = rng.integers(1, 2**63, size=int(np.ceil(seconds)), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    steps = np.uint64(1) << rng.integers(1, 64, size=4 * len(scenes), dtype=np.uint64)
    return (np.repeat(scenes, 4) ^ steps)[: round(4 * seconds)]


def still(seed: int, seconds: float) -> np.ndarray:
    """Codes of one unmoved picture."""
    return np.repeat(moving(seed, 1)[:1], round(4 * seconds))


def noisy(codes_S: np.ndarray, bits: int, seed: int = 0) -> np.ndarray:
    """Turn up to ``bits`` bits of every code, as another encoding does."""
    rng = np.random.default_rng(seed)
    for _ in range(bits):
        codes_S = codes_S ^ (np.uint64(1) << rng.integers(1, 64, size=len(codes_S), dtype=np.uint64))
    return codes_S


def of(*parts: np.ndarray) -> Fingerprint:
    """The fingerprint of parts one after another, whose cropped views look like nothing else."""
    codes_S = np.concatenate(parts)
    turns = np.random.default_rng(77).integers(1, 2**63, size=len(VIEWS), dtype=np.uint64)
    return Fingerprint(np.stack([codes_S, *(codes_S ^ turn for turn in turns[1:])], axis=1))


def evaluation_video(evaluation_id: str, **changed: object) -> EvaluationVideo:
    """A video of an evaluation list, with a fingerprint."""
    values = {
        "evaluation_id": evaluation_id,
        "name": f"exam-{evaluation_id}",
        "listed_in": "exam",
        "key": evaluation_id,
    } | changed
    return EvaluationVideo.model_validate(values)


def find(
    videos: Sequence[VideoRecord],
    prints: dict[str, Fingerprint],
    *,
    evaluation: Sequence[EvaluationVideo] = (),
    config: DedupConfig = CONFIG,
    exact_below: int = 1 << 14,
) -> tuple[list[str], dict[str, Rejection], list[DuplicatePair]]:
    """Return the ids that are kept, the rejections by id, and all pairs."""
    exact = exact_pairs(videos)
    gone = {pair.source_id for pair in exact}
    left = [video for video in videos if video.source_id not in gone]
    pairs = exact + find_pairs(left, evaluation, prints, config, exact_below=exact_below)
    kept, rejections = judge(videos, pairs)
    return [video.video_id for video in kept], {r.item_id: r for r in rejections}, pairs
