"""From checked videos to questions: scan, near-duplicates, clips, captions, questions."""

from __future__ import annotations

import logging
from collections import Counter

from prefect import task

from longvila.config.footage import ClipConfig, FramesConfig, ShotConfig
from longvila.config.language import CaptionConfig, QuestionConfig
from longvila.config.sourcing import DedupConfig
from longvila.curation import build, export, report
from longvila.curation.asking.options import option_reports
from longvila.curation.duplicates.pairs import DuplicatePair
from longvila.curation.duplicates.splits import SplitReport
from longvila.curation.duplicates.steps import VERSION
from longvila.curation.scan import Scan, load_thumbs
from longvila.errors import InputError
from longvila.records import Caption, Clip, Question, VideoRecord
from tasks.artifacts import add_picture, add_table
from tasks.marks import mark_for
from tasks.policy import HOUR_S, is_transient
from tasks.progress import StepProgress
from tasks.refs import ManifestRef, WorkspaceRef, read_records, step_ref

logger = logging.getLogger(__name__)


@task(
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
    timeout_seconds=12 * HOUR_S,
    tags=["ffmpeg"],
    task_run_name="scan-{videos.num_results}",
)
def scan_batch(
    workspace: WorkspaceRef, videos: ManifestRef, shots: ShotConfig, frames: FramesConfig
) -> ManifestRef:
    """Decode each video of a batch once: shots, measurements, hashes, and the frames for training."""
    opened = workspace.open()
    items = read_records(opened, videos, VideoRecord)
    progress = StepProgress("scan", unit="videos")
    result = build.scan_batch(opened, items, shot_config=shots, frames=frames, progress=progress)
    return step_ref("scan", result, num_items=len(items))


@task(timeout_seconds=4 * HOUR_S, tags=["curation"], task_run_name="dedup")
def dedup_all(
    workspace: WorkspaceRef, videos: list[ManifestRef], scans: list[ManifestRef], pairs: ManifestRef
) -> ManifestRef:
    """Reject duplicates over the whole set, and training videos that leak held-out or evaluation videos."""
    opened = workspace.open()
    scanned = read_records(opened, scans, Scan)
    found = read_records(opened, pairs, DuplicatePair)
    result = build.dedup_all(opened, read_records(opened, videos, VideoRecord), scanned, found)
    if not result.results:
        raise InputError("No video is left after the checks. Look at the rejections, and add sources.")
    rows = [rejected.model_dump(mode="json") for rejected in result.rejections]
    add_table("duplicates", rows, description="Videos that are in another one")
    return step_ref("dedup", result, num_items=len(scanned))


@task(timeout_seconds=4 * HOUR_S, tags=["curation"], task_run_name="check-splits")
def check_splits(
    workspace: WorkspaceRef, videos: ManifestRef, scans: list[ManifestRef], config: DedupConfig
) -> str:
    """Compare the held-out with the training videos; raise ``InputError`` when a passage is shared."""
    opened = workspace.open()
    kept = read_records(opened, videos, VideoRecord)
    scanned = read_records(opened, scans, Scan)
    mark = mark_for("check-splits", VERSION, config, [found.scan_id for found in scanned])
    before = mark.read(opened, SplitReport)
    if isinstance(before, SplitReport):
        return _compared(before)
    found = build.check_splits(opened, kept, scanned, config)
    if found.shared:
        first = found.shared[0]
        raise InputError(
            f"Training and held-out videos share passages: {len(found.shared)} pairs do, for example "
            f"{first.heldout_video_id} from {first.passage.other_start_s:.1f} s and {first.train_video_id} "
            f"from {first.passage.start_s:.1f} s. Move one of the two videos to the other's split."
        )
    mark.write(opened, found)
    logger.info("splits share no passage: %s", _compared(found))
    return _compared(found)


@task(timeout_seconds=HOUR_S, tags=["curation"], task_run_name="clips-{scans.num_results}")
def make_clips(
    workspace: WorkspaceRef, videos: ManifestRef, scans: ManifestRef, config: ClipConfig
) -> ManifestRef:
    """Join the shots of each video into clips."""
    opened = workspace.open()
    scanned = read_records(opened, scans, Scan)
    result = build.clips_batch(opened, read_records(opened, videos, VideoRecord), scanned, config)
    return step_ref("clips", result, num_items=len(scanned))


@task(
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
    timeout_seconds=12 * HOUR_S,
    tags=["ffmpeg"],
    task_run_name="export-{clips.num_results}",
)
def export_clips(
    workspace: WorkspaceRef,
    videos: ManifestRef,
    clips: ManifestRef,
    prefix: str = "clips",
    crf: int = 20,
    audio: bool = True,
    threads: int = 1,
) -> ManifestRef:
    """Write each clip as an MP4 of its own, below ``prefix`` on the workspace's storage."""
    opened = workspace.open()
    made = read_records(opened, clips, Clip)
    result = export.export_clips(
        opened,
        read_records(opened, videos, VideoRecord),
        made,
        prefix=prefix,
        crf=crf,
        audio=audio,
        threads=threads,
        progress=StepProgress("export", unit="clips"),
    )
    return step_ref("export-clips", result, num_items=len(made))


@task(
    retries=2,
    retry_delay_seconds=[60, 300],
    retry_condition_fn=is_transient,
    timeout_seconds=24 * HOUR_S,
    tags=["curation"],
    task_run_name="captions-{scans.num_results}",
)
def caption_clips(
    workspace: WorkspaceRef,
    videos: ManifestRef,
    scans: ManifestRef,
    clips: ManifestRef,
    config: CaptionConfig,
) -> ManifestRef:
    """Describe the clips of each video: by what is measured in them, or by a language model."""
    opened = workspace.open()
    scanned = read_records(opened, scans, Scan)
    listed = read_records(opened, videos, VideoRecord)
    made = read_records(opened, clips, Clip)
    progress = StepProgress("captions", unit="videos")
    result = build.caption_batch(opened, listed, scanned, made, config, progress=progress)
    if result.results:
        shown = next(found for found in scanned if found.video_id == result.results[0].video_id)
        sheet = report.contact_sheet(load_thumbs(opened, shown), result.results[:1])
        add_picture("clip", sheet[0].jpeg, media_type="image/jpeg", description=sheet[0].text)
    return step_ref("captions", result, num_items=len(scanned))


@task(
    retries=2,
    retry_delay_seconds=[60, 300],
    retry_condition_fn=is_transient,
    timeout_seconds=24 * HOUR_S,
    tags=["curation"],
    task_run_name="summaries-{scans.num_results}",
)
def summarise_videos(
    workspace: WorkspaceRef,
    videos: ManifestRef,
    scans: ManifestRef,
    captions: ManifestRef,
    config: CaptionConfig,
) -> ManifestRef:
    """Tell chapters and whole videos from the captions of their clips, as far as the recipe asks for them."""
    opened = workspace.open()
    scanned = read_records(opened, scans, Scan)
    listed = read_records(opened, videos, VideoRecord)
    said = read_records(opened, captions, Caption)
    progress = StepProgress("summaries", unit="videos")
    result = build.summary_batch(opened, listed, scanned, said, config, progress=progress)
    return step_ref("summaries", result, num_items=len(scanned))


@task(
    retries=2,
    retry_delay_seconds=[30, 300],
    retry_condition_fn=is_transient,
    timeout_seconds=24 * HOUR_S,
    tags=["curation"],
    task_run_name="questions-{scans.num_results}",
)
def write_questions(
    workspace: WorkspaceRef,
    videos: ManifestRef,
    scans: ManifestRef,
    captions: ManifestRef,
    config: QuestionConfig,
    summaries: ManifestRef | None = None,
) -> ManifestRef:
    """Write questions with their evidence, by measuring or by a language model, and check them."""
    opened = workspace.open()
    scanned = read_records(opened, scans, Scan)
    listed = read_records(opened, videos, VideoRecord)
    said = read_records(opened, [captions, *([summaries] if summaries else [])], Caption)
    progress = StepProgress("questions", unit="videos")
    result = build.question_batch(opened, listed, scanned, said, config, progress=progress)
    return step_ref("questions", result, num_items=len(scanned))


@task(timeout_seconds=HOUR_S, tags=["curation"], task_run_name="filter-questions")
def filter_questions(workspace: WorkspaceRef, videos: ManifestRef, written: list[ManifestRef]) -> ManifestRef:
    """Keep the questions that are well formed and cannot be answered blindly, over the whole set."""
    opened = workspace.open()
    items = read_records(opened, written, Question)
    result = build.filter_all(opened, read_records(opened, videos, VideoRecord), items)
    if not result.results:
        reasons = Counter(rejection.reason for rejection in result.rejections)
        said = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "none was written"
        raise InputError(
            f"No question is left after the filters: {len(items)} were written, rejected as {said}. See "
            f"manifests/filter-questions in {opened.storage.url}. Add longer videos, or ask more with "
            "data.questions: a shorter stride_s or a larger max_per_video; of a model: more kinds, a better "
            "model, or milder checks."
        )
    rows = [baseline.model_dump() for baseline in report.baselines(result.results)]
    add_table("questions", rows, description="Kept questions by kind, and what a blind guess gets right")
    options = [found.model_dump() for found in option_reports(result.results)]
    if options:
        add_table("options", options, description="Where the right options stand, and whether length tells")
    return step_ref("filter-questions", result, num_items=len(items))


def _compared(found: SplitReport) -> str:
    compared = f"{found.num_heldout_pictures} × {found.num_train_pictures} pictures"
    if found.nearest_distance is None:
        return compared
    return f"{compared}, nearest {found.nearest_distance} bits of 64 apart"
