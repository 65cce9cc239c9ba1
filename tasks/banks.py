"""Decoded frames of whole videos, kept on the local disk so that each set does not decode them again."""

from __future__ import annotations

from collections.abc import Sequence

from longvila.curation.composing.frame_bank import FrameBank
from longvila.errors import InputError
from longvila.evaluation.haystack import load_haystack
from longvila.records import Split, VideoRecord
from longvila.storage import Workspace
from tasks.refs import ManifestRef, read_records


def load_bank(workspace: Workspace, videos: Sequence[VideoRecord], *, fps: float, size: int) -> FrameBank:
    """Return the frames of the videos at ``fps`` and ``size`` pixels per side, decoded once per workspace."""
    listed = [(video.video_id, workspace.fetch_local(video.key)) for video in videos]
    return load_haystack(listed, fps=fps, size=size, cache_dir=workspace.root / "cache" / "frames")


def videos_of(workspace: Workspace, videos: ManifestRef, split: Split) -> list[VideoRecord]:
    """The videos of one split, in an order that does not depend on how they were batched."""
    chosen = [video for video in read_records(workspace, videos, VideoRecord) if video.split == split]
    if not chosen:
        raise InputError(
            f"There is no video of split {split!r} left. Look at what was rejected, or add a source of it."
        )
    return sorted(chosen, key=lambda video: video.source_id)
