"""The steps of a build in their order, each as one call that resumes where an earlier run stopped.

::

    sources → fetch → validate → scan → dedup → shots → clips → captions → questions → filter → samples

The scan is the one decode pass; all that follows reads what it measured. A step's output is named by the hash
of its inputs and settings (``longvila.storage.steps``), so a changed setting redoes just what it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from longvila.config.footage import ClipConfig, FramesConfig, ShotConfig
from longvila.config.language import CaptionConfig, QuestionConfig
from longvila.config.sourcing import DedupConfig, FetchConfig, ValidateConfig
from longvila.curation import (
    captions,
    clips,
    dedup,
    fetch,
    filters,
    questions,
    samples,
    scan,
    validate,
)
from longvila.curation.download import Downloader
from longvila.curation.fetch import FetchedVideo
from longvila.curation.sampling import Measures
from longvila.curation.scan import Scan
from longvila.media.jpeg import FrameBlob
from longvila.records import Caption, Clip, Question, Record, Sample, Shot, Source, Split, VideoRecord
from longvila.storage import StepResult, Workspace, run_step, run_whole

Progress = Callable[[int, int], None] | None
CONNECTIONS = 4


class Timeline(Record):
    """One video with what earlier steps made of it: the item of the steps that work video by video."""

    video_id: str
    video: VideoRecord
    scan: Scan
    clips: tuple[Clip, ...] = ()
    captions: tuple[Caption, ...] = ()


def fetch_batch(
    workspace: Workspace, sources: Sequence[Source], config: FetchConfig, *, progress: Progress = None
) -> StepResult[FetchedVideo]:
    """Fetch sources into the workspace."""
    with Downloader(config) as downloader:
        return run_step(
            workspace,
            name="fetch",
            version=fetch.VERSION,
            settings=None,  # limits and manners do not change what a file is
            items=sources,
            process=lambda source: fetch.fetch_source(
                source, workspace=workspace, config=config, downloader=downloader
            ),
            result_cls=FetchedVideo,
            progress=progress,
            still_valid=lambda fetched: workspace.storage.exists(fetched.key),
            retried_reasons=fetch.RETRIED_REASONS,
            workers=CONNECTIONS,
        )


def validate_batch(
    workspace: Workspace,
    fetched: Sequence[FetchedVideo],
    config: ValidateConfig,
    *,
    progress: Progress = None,
) -> StepResult[VideoRecord]:
    """Keep the files that are whole videos."""
    return run_step(
        workspace,
        name="validate",
        version=validate.VERSION,
        settings=config,
        items=fetched,
        process=lambda item: validate.validate(item, workspace.fetch_local(item.key), config),
        result_cls=VideoRecord,
        progress=progress,
    )


def scan_batch(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    *,
    shot_config: ShotConfig,
    frames: FramesConfig,
    progress: Progress = None,
) -> StepResult[Scan]:
    """Decode each video once: shots, measures, hashes, thumbnails and the frames for training."""

    def process(video: VideoRecord) -> Scan:
        found = scan.scan_video(workspace.fetch_local(video.key), shots=shot_config, frames=frames)
        return scan.store_scan(workspace, video, found, shots=shot_config, frames=frames)

    return run_step(
        workspace,
        name="scan",
        version=scan.VERSION,
        settings={"shots": shot_config.model_dump(), "frames": frames.model_dump()},
        items=videos,
        process=process,
        result_cls=Scan,
        progress=progress,
        still_valid=lambda found: workspace.storage.exists(found.key),
    )


def dedup_all(
    workspace: Workspace, videos: Sequence[VideoRecord], scans: Sequence[Scan], config: DedupConfig
) -> StepResult[VideoRecord]:
    """Reject duplicates among all videos, and training videos that share a picture with a held-out one.

    Videos without a scan (they could not be decoded) are left out: the scan's rejections name them.
    """
    scanned = {found.video_id: found for found in scans}
    present = [video for video in videos if video.video_id in scanned]

    def compute() -> tuple[list[VideoRecord], list[Any]]:
        measured = _measures(workspace, scanned.values())
        return dedup.find_duplicates(present, measured, config)

    return run_whole(
        workspace,
        name=dedup.STEP,
        version=dedup.VERSION,
        settings=config,
        inputs=[*present, *scans],
        compute=compute,
        result_cls=VideoRecord,
    )


def check_splits(
    workspace: Workspace, videos: Sequence[VideoRecord], scans: Sequence[Scan], config: DedupConfig
) -> dedup.SplitReport:
    """Compare every picture of the held-out videos with every one of the training videos."""
    measured = _measures(workspace, scans)
    parts = {
        split: {v.video_id: measured[v.video_id] for v in videos if v.split == split}
        for split in ("train", "heldout")
    }
    return dedup.split_leakage(parts["train"], parts["heldout"], max_distance=config.max_distance)


def shots_of(videos: Sequence[VideoRecord], scans: Sequence[Scan]) -> list[Shot]:
    """Return the shots of the kept videos."""
    kept = {video.video_id for video in videos}
    return [shot for found in scans if found.video_id in kept for shot in found.shots]


def clips_batch(
    workspace: Workspace, videos: Sequence[VideoRecord], scans: Sequence[Scan], config: ClipConfig
) -> StepResult[Clip]:
    """Join shots into clips."""
    return run_step(
        workspace,
        name="clips",
        version=clips.VERSION,
        settings=config,
        items=_timelines(videos, scans),
        process=lambda item: clips.make_clips(item.scan.shots, config),
        result_cls=Clip,
    )


def caption_batch(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    scans: Sequence[Scan],
    made: Sequence[Clip],
    config: CaptionConfig,
    *,
    progress: Progress = None,
) -> StepResult[Caption]:
    """Describe every clip."""

    def process(item: Timeline) -> list[Caption]:
        captioner = captions.MeasuredCaptioner(scan.load_measures(workspace, item.scan), item.scan.shots)
        return [captioner.caption(clip) for clip in item.clips]

    return run_step(
        workspace,
        name="captions",
        version=captions.VERSION,
        settings=config,
        items=_timelines(videos, scans, made=made),
        process=process,
        result_cls=Caption,
        progress=progress,
    )


def question_batch(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    scans: Sequence[Scan],
    captioned: Sequence[Caption],
    config: QuestionConfig,
    *,
    progress: Progress = None,
) -> StepResult[Question]:
    """Write the questions of every video."""

    def process(item: Timeline) -> list[Question]:
        measures = scan.load_measures(workspace, item.scan)
        return questions.write_questions(item.video, measures, item.scan.shots, item.captions, config)

    return run_step(
        workspace,
        name="questions",
        version=questions.VERSION,
        settings=config,
        items=_timelines(videos, scans, captioned=captioned),
        process=process,
        result_cls=Question,
        progress=progress,
    )


def filter_all(
    workspace: Workspace, videos: Sequence[VideoRecord], written: Sequence[Question]
) -> StepResult[Question]:
    """Keep the good questions, balanced over the whole set."""
    durations_s = {video.video_id: video.duration_s for video in videos}
    return run_whole(
        workspace,
        name=filters.STEP,
        version=filters.VERSION,
        settings={"durations_s": durations_s},
        inputs=written,
        compute=lambda: filters.filter_questions(written, durations_s),
        result_cls=Question,
    )


def question_samples(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    scans: Sequence[Scan],
    kept: Sequence[Question],
    *,
    split: Split,
) -> Iterator[tuple[Sample, FrameBlob]]:
    """Yield the samples of one split with their frames, ready for shards."""
    scanned = {found.video_id: found for found in scans}
    return samples.question_samples(
        kept,
        {video.video_id: video for video in videos},
        lambda video_id: scan.load_strip(workspace, scanned[video_id]),
        split=split,
    )


def _timelines(
    videos: Sequence[VideoRecord],
    scans: Sequence[Scan],
    *,
    made: Sequence[Clip] = (),
    captioned: Sequence[Caption] = (),
) -> list[Timeline]:
    scanned = {found.video_id: found for found in scans}
    return [
        Timeline(
            video_id=video.video_id,
            video=video,
            scan=scanned[video.video_id],
            clips=tuple(clip for clip in made if clip.video_id == video.video_id),
            captions=tuple(caption for caption in captioned if caption.video_id == video.video_id),
        )
        for video in videos
    ]


def _measures(workspace: Workspace, scans: Any) -> dict[str, Measures]:
    return {found.video_id: scan.load_measures(workspace, found) for found in scans}
