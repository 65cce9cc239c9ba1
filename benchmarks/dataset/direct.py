"""A build by plain calls of the library, without Prefect: what orchestration is compared with.

``python -m benchmarks.dataset.direct RECIPE WORKSPACE``
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from longvila.config import load_data_recipe
from longvila.config.data import DataConfig
from longvila.config.sources import load_sources
from longvila.curation import build
from longvila.curation.scan import Scan
from longvila.data import SampleWithFrames, verify_dataset, write_dataset
from longvila.records import Question, Split, VideoRecord
from longvila.storage import Workspace

ItemT = TypeVar("ItemT")
SPLITS: tuple[Split, ...] = ("train", "heldout")


def main(argv: Sequence[str]) -> None:
    """Build."""
    recipe, workspace = argv
    data = load_data_recipe(recipe).data
    build_directly(Workspace.open(Path(workspace)), data)


def build_directly(workspace: Workspace, data: DataConfig) -> None:
    """Run every step on the same batches as the flow does, one after another."""
    videos: list[VideoRecord] = []
    scans: list[Scan] = []
    for sources in _batches(load_sources(data.sources), data.batch_size):
        fetched = build.fetch_batch(workspace, sources, data.fetch)
        checked = build.validate_batch(workspace, fetched.results, data.validation, data.normalise)
        scanned = build.scan_batch(workspace, checked.results, shot_config=data.shots, frames=data.frames)
        videos += checked.results
        scans += scanned.results
    pairs = build.find_duplicates(workspace, videos, scans, data.dedup).results
    kept = build.dedup_all(workspace, videos, scans, pairs).results
    build.check_splits(workspace, kept, scans, data.dedup)
    written = [
        question
        for batch in _batches(kept, data.batch_size)
        for question in _ask(workspace, batch, scans, data)
    ]
    questions = build.filter_all(workspace, kept, written).results
    _write(workspace, kept, scans, questions, data)


def _ask(
    workspace: Workspace, videos: Sequence[VideoRecord], scans: Sequence[Scan], data: DataConfig
) -> list[Question]:
    ids = {video.video_id for video in videos}
    own = [scan for scan in scans if scan.video_id in ids]
    clips = build.clips_batch(workspace, videos, own, data.clips).results
    captions = build.caption_batch(workspace, videos, own, clips, data.captions).results
    return build.question_batch(workspace, videos, own, captions, data.questions).results


def _write(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    scans: Sequence[Scan],
    questions: Sequence[Question],
    data: DataConfig,
) -> None:
    for split in SPLITS:
        if any(question.split == split for question in questions):
            found = build.question_samples(workspace, videos, scans, questions, split=split)
            samples = (SampleWithFrames(*item) for item in found)
            write_dataset(
                workspace.storage, "questions", split, samples, target_bytes=data.shards.target_bytes
            )
    verify_dataset(workspace.storage, "questions", decode=True)


def _batches(items: Sequence[ItemT], size: int) -> Iterator[Sequence[ItemT]]:
    return (items[start : start + size] for start in range(0, len(items), size))


if __name__ == "__main__":
    main(sys.argv[1:])
