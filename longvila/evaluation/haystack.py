"""Film frames of held-out videos for the haystack, decoded once and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from longvila.curation.composing.frame_bank import FrameBank, decode_bank
from longvila.records import content_id
from longvila.storage.files import atomic_path

VERSION = 1


def load_haystack(
    videos: Sequence[tuple[str, Path]], *, fps: float, size: int, cache_dir: Path | None
) -> FrameBank:
    """Return frames of videos, each ``(video_id, path)``, at ``fps`` per second and ``size`` pixels per side.

    Ids are hashes of the videos' content, so what ``cache_dir`` keeps never goes stale. Raises InputError
    without a video, ItemError for one that cannot be decoded.
    """
    if cache_dir is None:
        return decode_bank(videos, fps=fps, size=size)
    key = content_id("haystack", VERSION, [video_id for video_id, _ in videos], fps, size)
    path = cache_dir / f"haystack-{key}.npz"
    kept = _read(path)
    if kept is not None:
        return kept
    bank = decode_bank(videos, fps=fps, size=size)
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, frames=bank.frames_NHW3, times_s=bank.times_s, video_ids=np.array(bank.video_ids))
    return bank


def _read(path: Path) -> FrameBank | None:
    """The kept bank, or none when there is none or it is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            return FrameBank(kept["frames"], kept["times_s"], tuple(kept["video_ids"].tolist()))
    except (BadZipFile, ValueError, KeyError, OSError):
        return None
