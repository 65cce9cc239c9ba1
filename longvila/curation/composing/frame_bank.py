"""Frames of real videos in memory, from which haystacks and single pictures are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longvila.errors import InputError

Frames = NDArray[np.uint8]

# N frames of a bank, n of them drawn, H × W pixels.


@dataclass(frozen=True)
class FrameBank:
    """All frames of some videos, one video after another, with where each frame comes from.

    ``frames_NHW3`` uint8; ``times_s`` seconds from the start of its video; ``video_ids`` one per frame.
    """

    frames_NHW3: Frames
    times_s: NDArray[np.float64]
    video_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.frames_NHW3):
            raise InputError("A frame bank needs at least one frame. Give it a video of this split.")
        assert len(self.frames_NHW3) == len(self.times_s) == len(self.video_ids)

    def __len__(self) -> int:
        return len(self.frames_NHW3)

    @property
    def size(self) -> int:
        """Pixels per side."""
        return self.frames_NHW3.shape[1]

    def run(self, start: int, count: int, *, stride: int = 1) -> NDArray[np.int64]:
        """Return the indices of ``count`` frames from ``start`` on, in order; past the end it begins anew."""
        return (start + stride * np.arange(count, dtype=np.int64)) % len(self)


def join_videos(videos: Sequence[tuple[str, Frames, NDArray[np.float64]]]) -> FrameBank:
    """Put videos, each ``(video_id, frames [N, H, W, 3], times_s [N])``, into one bank."""
    if not videos:
        raise InputError("There is no video to take frames from. Add a source of this split to the list.")
    return FrameBank(
        np.concatenate([frames for _, frames, _ in videos]),
        np.concatenate([times for _, _, times in videos]).astype(np.float64),
        tuple(video_id for video_id, frames, _ in videos for _ in range(len(frames))),
    )


def decode_bank(videos: Iterable[tuple[str, Path]], *, fps: float, size: int) -> FrameBank:
    """Decode videos, each ``(video_id, path)``, at ``fps`` frames per second and ``size`` pixels per side.

    Raises ``ItemError`` on a video that cannot be decoded.
    """
    from longvila.media.decode import iterate_frames  # media's readers need PyAV; composing does not

    decoded = []
    for video_id, path in videos:
        timed = list(iterate_frames(path, fps=fps, size=size))
        if timed:
            frames_NHW3 = np.stack([frame for _, frame in timed])
            decoded.append((video_id, frames_NHW3, np.array([time_s for time_s, _ in timed])))
    return join_videos(decoded)
