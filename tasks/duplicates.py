"""Videos that are in one another, and evaluation videos that must not be trained on."""

from __future__ import annotations

import logging
from pathlib import Path

from prefect import task

from longvila.config.model import Settings
from longvila.config.sources import load_sources
from longvila.config.sourcing import DedupConfig, FetchConfig, ValidateConfig
from longvila.curation import build
from longvila.curation.duplicates import lists, store
from longvila.curation.duplicates.pairs import DuplicatePair
from longvila.curation.duplicates.protected import EvaluationVideo
from longvila.curation.scan import Scan
from longvila.errors import InputError
from longvila.records import Rejection, Source, VideoRecord
from tasks.artifacts import add_table
from tasks.fetch import fetch_batch, served_base, validate_batch
from tasks.policy import HOUR_S, is_transient
from tasks.progress import StepProgress
from tasks.refs import ManifestRef, WorkspaceRef, read_records, read_rejections, step_ref, write_batches

logger = logging.getLogger(__name__)
_ROWS = 200  # of a table in the UI


class FingerprintFile(Settings):
    """A file of fingerprints that was written."""

    path: str
    num_videos: int
    num_rejections: int

    @property
    def last_word(self) -> str:
        """For the terminal."""
        return f"{self.path}: {self.num_videos} videos, {self.num_rejections} could not be read"


@task(timeout_seconds=HOUR_S, tags=["sources"], task_run_name="evaluation-{evaluation_list}")
def list_evaluation(workspace: WorkspaceRef, evaluation_list: str) -> ManifestRef:
    """Read which videos an evaluation list names, and their fingerprints where it holds them."""
    opened = workspace.open()
    videos = lists.read_list(evaluation_list, opened)
    logger.info("%s names %d evaluation videos", evaluation_list, len(videos))
    return write_batches(opened, "evaluation", videos, EvaluationVideo, size=len(videos))[0]


@task(
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
    timeout_seconds=12 * HOUR_S,
    tags=["ffmpeg"],
    task_run_name="fingerprints-{videos.num_results}",
)
def fingerprint_batch(workspace: WorkspaceRef, videos: ManifestRef, listed: ManifestRef) -> ManifestRef:
    """Decode evaluation videos for their fingerprints; they are used for nothing else."""
    opened = workspace.open()
    items = read_records(opened, videos, VideoRecord)
    named = read_records(opened, listed, EvaluationVideo)
    progress = StepProgress("fingerprints", unit="videos")
    result = build.fingerprint_batch(opened, items, named, progress=progress)
    return step_ref("fingerprints", result, num_items=len(items))


@task(timeout_seconds=HOUR_S, tags=["curation"], task_run_name="evaluation-unread")
def warn_of_unread(workspace: WorkspaceRef, steps: list[ManifestRef]) -> int:
    """Say which evaluation videos could not be read: against these nothing but names is compared."""
    unread = read_rejections(workspace.open(), steps)
    if unread:
        add_table("evaluation-unread", _rows(unread), description="Evaluation videos that could not be read")
        logger.warning(
            "%d evaluation videos could not be read, so only their names are looked for; the first: %s",
            len(unread),
            unread[0].detail,
        )
    return len(unread)


@task(timeout_seconds=12 * HOUR_S, tags=["curation"], task_run_name="find-duplicates")
def find_duplicates(
    workspace: WorkspaceRef,
    videos: list[ManifestRef],
    scans: list[ManifestRef],
    config: DedupConfig,
    evaluation: list[ManifestRef] | None = None,
    sources: list[ManifestRef] | None = None,
) -> ManifestRef:
    """Find which videos are in others, over the whole set, and which show evaluation videos."""
    opened = workspace.open()
    listed = read_records(opened, videos, VideoRecord)
    result = build.find_duplicates(
        opened,
        listed,
        read_records(opened, scans, Scan),
        config,
        evaluation=read_records(opened, evaluation or [], EvaluationVideo),
        sources=read_records(opened, sources or [], Source),
        progress=StepProgress("duplicates", unit="videos"),
    )
    rows = [_row(pair) for pair in result.results[:_ROWS]]
    add_table("duplicate-pairs", rows, description="Videos that share something, and how much")
    return step_ref("duplicates", result, num_items=len(listed))


@task(timeout_seconds=12 * HOUR_S, tags=["ffmpeg"], task_run_name="fingerprint-{source_list}")
def fingerprint_videos(
    workspace: WorkspaceRef,
    source_list: str,
    out: str,
    fetch: FetchConfig | None = None,
    validation: ValidateConfig | None = None,
    base: str | None = None,
) -> FingerprintFile:
    """Fetch the videos of a source list and write their fingerprints to one Parquet file.

    The owner of a benchmark can publish this file without the videos; as an entry of
    ``data.dedup.evaluation_lists`` it keeps them out of others' training sets.
    """
    opened = workspace.open()
    sources = load_sources(source_list)
    listed = write_batches(opened, "sources", sources, Source, size=len(sources))[0]
    fetched = fetch_batch.fn(workspace, listed, fetch or FetchConfig(), base or served_base(source_list))
    checked = validate_batch.fn(workspace, fetched, validation or ValidateConfig())
    named = list_evaluation.fn(workspace, source_list)
    found = fingerprint_batch.fn(workspace, checked, named)
    videos = read_records(opened, found, EvaluationVideo)
    if not videos:
        raise InputError(f"No video of {source_list} could be read, so {out} was not written. See the log.")
    urls = {source.source_id: source.url for source in sources}
    rows = ((video, urls[video.name], store.load_fingerprint(opened.storage, video.key)) for video in videos)
    store.write_fingerprint_file(Path(out), rows, origin=source_list)
    num_rejections = warn_of_unread.fn(workspace, [fetched, checked, found])
    return FingerprintFile(path=out, num_videos=len(videos), num_rejections=num_rejections)


def _rows(rejections: list[Rejection]) -> list[dict]:
    return [rejected.model_dump(mode="json") for rejected in rejections[:_ROWS]]


def _row(pair: DuplicatePair) -> dict:
    first = pair.passages[0] if pair.passages else None
    return {
        "video": pair.source_id,
        "is in": pair.other_source_id,
        "split": pair.against,
        "kind": pair.kind,
        "share": f"{pair.share:.0%}",
        "at": f"{first.start_s:.1f}–{first.stop_s:.1f} s" if first else "",
        "there at": f"{first.other_start_s:.1f}–{first.other_stop_s:.1f} s" if first else "",
        "speed": f"{first.speed:.2f}" if first else "",
        "rejected": "yes" if pair.rejects else "",
    }
