"""A data set of short windows of real videos, for loaders to go through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from longvila.data import DatasetIndexRef, SampleWithFrames, write_dataset
from longvila.data.views import export_view
from longvila.media.decode import iterate_frames
from longvila.media.jpeg import FrameBlob, pack_frames
from longvila.records import Sample, Turn
from longvila.storage import open_storage

NAME = "windows"
QUESTION = "<frames>\nWhat happens here, and what is seen first?"


class Shape(NamedTuple):
    """How large the data set is."""

    num_samples: int
    num_frames: int  # of each sample
    size: int  # pixels per side
    shard_bytes: int


def write_windows(folder: Path, videos: Sequence[Path], shape: Shape) -> DatasetIndexRef:
    """Write samples that are windows of the videos at two frames a second, and Energon's metadata."""
    jpegs = [
        pack_frames(picture[None], quality=90).data
        for video in videos
        for _, picture in iterate_frames(video, fps=2.0, size=shape.size)
    ]
    storage = open_storage(folder)
    ref = write_dataset(storage, NAME, "train", _samples(jpegs, shape), target_bytes=shape.shard_bytes)
    export_view(storage, NAME, "energon")
    return ref


def _samples(jpegs: list[bytes], shape: Shape) -> Iterator[SampleWithFrames]:
    for number in range(shape.num_samples):
        start = 7 * number % (len(jpegs) - shape.num_frames)
        chosen = jpegs[start : start + shape.num_frames]
        offsets = np.concatenate([[0], np.cumsum([len(jpeg) for jpeg in chosen])]).astype(np.int64)
        sample = Sample(
            key=f"window-{number:05d}",
            kind="video",
            split="train",
            conversations=(
                Turn(role="human", text=QUESTION),
                Turn(role="gpt", text=f"Window {number} begins with picture {start}."),
            ),
            frame_times_s=tuple(0.5 * i for i in range(shape.num_frames)),
        )
        yield SampleWithFrames(sample, FrameBlob(b"".join(chosen), offsets))
