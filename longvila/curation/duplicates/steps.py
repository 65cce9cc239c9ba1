"""The two pieces of work that a build does: find all duplicates, and fingerprint a video by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from longvila.config.sourcing import DedupConfig
from longvila.curation.duplicates.find import Progress, find_pairs
from longvila.curation.duplicates.fingerprint import Fingerprint, Fingerprinter
from longvila.curation.duplicates.judge import exact_pairs, named_pairs
from longvila.curation.duplicates.pairs import DuplicatePair
from longvila.curation.duplicates.protected import EvaluationVideo, Named, find_named
from longvila.curation.duplicates.store import StoredFingerprints, fingerprint_key, store_fingerprint
from longvila.curation.sampling import SAMPLES_PER_S
from longvila.media.decode import iterate_frames
from longvila.media.probe import probe
from longvila.records import Source, VideoRecord, content_id
from longvila.storage import Workspace
from longvila.storage.base import Storage

VERSION = 1
_LONG_SIDE = 160  # of the picture that is coded, as in a scan


def find_all(
    storage: Storage,
    videos: Sequence[VideoRecord],
    keys: Mapping[str, str],
    config: DedupConfig,
    *,
    evaluation: Sequence[EvaluationVideo] = (),
    sources: Sequence[Source] = (),
    progress: Progress = None,
) -> list[DuplicatePair]:
    """Find the pairs of videos that share something; ``keys`` say by video_id where fingerprints lie.

    A training video that an evaluation list names is known from then on by its pictures too, so that its
    copies are found as well.
    """
    named = find_named(videos, {source.source_id: source for source in sources}, evaluation)
    exact = exact_pairs(videos)
    gone = {pair.source_id for pair in exact} | {found.video.source_id for found in named}
    left = [video for video in videos if video.source_id not in gone]
    shown = [*evaluation, *(_shown_by(found, keys) for found in named)]
    places = dict(keys) | {item.evaluation_id: item.key for item in shown if item.key}
    pairs = find_pairs(left, shown, StoredFingerprints(storage, places), config, progress=progress)
    return [*named_pairs(named), *exact, *pairs]


def fingerprint_video(workspace: Workspace, video: VideoRecord, listed: EvaluationVideo) -> EvaluationVideo:
    """Fingerprint one evaluation video. Raises ``ItemError`` when it cannot be decoded."""
    key = fingerprint_key(video.video_id)
    if not workspace.storage.exists(key):
        found = fingerprint_file(workspace.fetch_local(video.key))
        store_fingerprint(workspace.storage, video.video_id, found)
    return listed.model_copy(update={"sha256": video.sha256, "duration_s": video.duration_s, "key": key})


def fingerprint_file(path: Path) -> Fingerprint:
    """Decode a video for its fingerprint alone."""
    facts = probe(path)
    scale = _LONG_SIDE / max(facts.width, facts.height)
    size = (max(8, round(facts.height * scale)), max(8, round(facts.width * scale)))
    fingerprinter = Fingerprinter()
    for _, picture_HW3 in iterate_frames(path, fps=SAMPLES_PER_S, size=size, facts=facts):
        fingerprinter.add(cv2.cvtColor(np.ascontiguousarray(picture_HW3), cv2.COLOR_RGB2GRAY))
    return fingerprinter.fingerprint()


def _shown_by(found: Named, keys: Mapping[str, str]) -> EvaluationVideo:
    """An evaluation video whose pictures are those of the training video that was recognised."""
    changed = {
        "evaluation_id": content_id("shown by", found.evaluation.evaluation_id, found.video.video_id),
        "key": keys[found.video.video_id],
        "duration_s": found.video.duration_s,
    }
    return found.evaluation.model_copy(update=changed)
