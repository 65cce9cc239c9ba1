"""Clips as files of their own: one MP4 each, exact to the frame, for tools that want them so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from longvila.errors import ItemError
from longvila.media.cutting import cut
from longvila.media.probe import Probe, probe
from longvila.records import Clip, Record, VideoRecord
from longvila.storage import StepResult, Workspace, check_key, run_step
from longvila.storage.files import os_errors

logger = logging.getLogger(__name__)

VERSION = 1
_REMEMBERED = 4  # videos whose facts are kept, for clips come video by video


class ExportedClip(Record):
    """One clip as a file in the workspace's storage."""

    clip_id: str
    video_id: str
    key: str
    size_bytes: int
    start_s: float
    stop_s: float


def export_clips(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    clips: Sequence[Clip],
    *,
    prefix: str = "clips",
    crf: int = 20,
    preset: str = "veryfast",
    audio: bool = True,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> StepResult[ExportedClip]:
    """Write every clip to ``{prefix}/{clip_id}.mp4`` on the workspace's storage, a folder or S3.

    A clip whose file is there already is not written again, whatever it was written with: use another prefix
    for another quality. A clip that cannot be cut becomes a rejection (reasons: video-missing, unreadable,
    undecodable), and the others go on. ``InputError`` for a prefix that is no plain path.
    """
    check_key(prefix)
    listed = {video.video_id: video for video in videos}

    @lru_cache(maxsize=_REMEMBERED)
    def facts_of(key: str) -> Probe:
        return probe(workspace.fetch_local(key))

    def process(clip: Clip) -> ExportedClip:
        if clip.video_id not in listed:
            raise ItemError(
                "video-missing", f"clip {clip.clip_id}: there is no record of video {clip.video_id}"
            )
        video, key = listed[clip.video_id], f"{prefix}/{clip.clip_id}.mp4"
        if not workspace.storage.exists(key):
            facts = facts_of(video.key)
            stop_s = min(clip.stop_s, facts.duration_s)
            with _scratch_file(workspace, clip) as out:
                with os_errors(f"write {out}"):
                    cut(
                        workspace.fetch_local(video.key), out, start_s=clip.start_s, stop_s=stop_s,
                        crf=crf, preset=preset, audio=audio, facts=facts, threads=threads,
                    )  # fmt: skip
                workspace.storage.put_file(key, out)
        return _exported(workspace, clip, key)

    return run_step(
        workspace,
        name="export-clips",
        version=VERSION,
        settings={"prefix": prefix, "crf": crf, "preset": preset, "audio": audio},
        items=clips,
        process=process,
        result_cls=ExportedClip,
        progress=progress,
        still_valid=lambda exported: workspace.storage.exists(exported.key),
    )


@contextmanager
def _scratch_file(workspace: Workspace, clip: Clip) -> Iterator[Path]:
    """Give a path to write a clip to, and remove what is left there."""
    out = workspace.scratch("export") / f"{clip.clip_id}.mp4"
    try:
        yield out
    finally:
        out.unlink(missing_ok=True)


def _exported(workspace: Workspace, clip: Clip, key: str) -> ExportedClip:
    return ExportedClip(
        clip_id=clip.clip_id,
        video_id=clip.video_id,
        key=key,
        size_bytes=workspace.storage.size(key),
        start_s=clip.start_s,
        stop_s=clip.stop_s,
    )
