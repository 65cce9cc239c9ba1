"""What is seen in the videos: the one decode pass, duplicates, shots, clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from longvila.config.footage import ClipConfig, FramesConfig, ShotConfig
from longvila.config.sourcing import DedupConfig
from longvila.curation import (
    clips,
    scan,
)
from longvila.curation.duplicates import judge, steps
from longvila.curation.duplicates.pairs import DuplicatePair
from longvila.curation.duplicates.protected import EvaluationVideo
from longvila.curation.duplicates.splits import SplitReport, compare_splits
from longvila.curation.duplicates.store import StoredFingerprints
from longvila.curation.scan import Scan
from longvila.records import Caption, Clip, Record, Shot, Source, VideoRecord
from longvila.storage import StepResult, Workspace, run_step, run_whole

Progress = Callable[[int, int], None] | None


class Timeline(Record):
    """One video with what earlier steps made of it: the item of the steps that work video by video."""

    video_id: str
    video: VideoRecord
    scan: Scan
    clips: tuple[Clip, ...] = ()
    captions: tuple[Caption, ...] = ()


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
        still_valid=lambda found: (
            workspace.storage.exists(found.key) and workspace.storage.exists(found.fingerprint_key)
        ),
    )


def find_duplicates(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    scans: Sequence[Scan],
    config: DedupConfig,
    *,
    evaluation: Sequence[EvaluationVideo] = (),
    sources: Sequence[Source] = (),
    progress: Progress = None,
) -> StepResult[DuplicatePair]:
    """Find which videos are in others, or in evaluation videos. ``sources`` give the full addresses.

    Videos without a scan (they could not be decoded) are left out: the scan's rejections name them.
    """
    return run_whole(
        workspace,
        name="duplicates",
        version=steps.VERSION,
        settings=config.model_dump(mode="json", exclude={"evaluation_lists"}),
        inputs=[*_present(videos, scans), *scans, *evaluation, *sources],
        compute=lambda: (
            steps.find_all(
                workspace.storage,
                _present(videos, scans),
                {found.video_id: found.fingerprint_key for found in scans},
                config,
                evaluation=evaluation,
                sources=sources,
                progress=progress,
            ),
            [],
        ),
        result_cls=DuplicatePair,
    )


def dedup_all(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    scans: Sequence[Scan],
    pairs: Sequence[DuplicatePair],
) -> StepResult[VideoRecord]:
    """Reject the videos that are in others, and training videos that leak held-out or evaluation videos."""
    present = _present(videos, scans)
    return run_whole(
        workspace,
        name=judge.STEP,
        version=steps.VERSION,
        settings=None,
        inputs=[*present, *pairs],
        compute=lambda: judge.judge(present, pairs),
        result_cls=VideoRecord,
    )


def check_splits(
    workspace: Workspace, videos: Sequence[VideoRecord], scans: Sequence[Scan], config: DedupConfig
) -> SplitReport:
    """Compare the pictures of the held-out videos with those of the training videos."""
    keys = {found.video_id: found.fingerprint_key for found in scans}
    return compare_splits(videos, StoredFingerprints(workspace.storage, keys), config)


def fingerprint_batch(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    listed: Sequence[EvaluationVideo],
    *,
    progress: Progress = None,
) -> StepResult[EvaluationVideo]:
    """Fingerprint evaluation videos; they are used for nothing else. ``listed`` is what their list says."""
    by_name = {item.name: item for item in listed}
    return run_step(
        workspace,
        name="fingerprints",
        version=steps.VERSION,
        settings={"listed": [item.model_dump(mode="json") for item in listed]},
        items=videos,
        process=lambda video: steps.fingerprint_video(workspace, video, by_name[video.source_id]),
        result_cls=EvaluationVideo,
        progress=progress,
        still_valid=lambda found: workspace.storage.exists(found.key),
    )


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
        items=timelines(videos, scans),
        process=lambda item: clips.make_clips(item.scan.shots, config),
        result_cls=Clip,
    )


def timelines(
    videos: Sequence[VideoRecord],
    scans: Sequence[Scan],
    *,
    made: Sequence[Clip] = (),
    captioned: Sequence[Caption] = (),
) -> list[Timeline]:
    """Put together what is known of each video; ``made`` and ``captioned`` are of all of them."""
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


def _present(videos: Sequence[VideoRecord], scans: Sequence[Scan]) -> list[VideoRecord]:
    """The videos that could be decoded."""
    scanned = {found.video_id for found in scans}
    return [video for video in videos if video.video_id in scanned]
