"""A ten-minute video of real scenes, and the shard that is made of it once."""

from __future__ import annotations

import subprocess
import time
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from longvila.media.decode import iterate_frames
from longvila.media.ffmpeg import ffmpeg_program
from longvila.media.jpeg import FrameBlob, pack_frames
from longvila.records import Sample, Turn
from longvila.storage import open_storage

VIDEOS = Path("datasets/demo/videos")
SHARDS = "strip"


class Source(NamedTuple):
    """What is read: a video, and the folder of the data set that holds the frames of it."""

    video: Path
    num_frames: int
    width: int
    height: int
    fps: float
    duration_s: float
    num_key_frames: int
    dataset: Path


def join_excerpts(folder: Path, out: Path, *, duration_s: float, height: int = 0) -> None:
    """Join the demo's excerpts, again from the first when they end.

    With a ``height`` they are scaled and encoded anew, as most videos of the web are (H.264, at most 250
    frames between key frames); else their packets are copied.
    """
    excerpts = sorted(folder.glob("0*.mp4"))
    listed = out.with_suffix(".txt")
    again = 1 + int(duration_s // (30 * len(excerpts)))
    listed.write_text("".join(f"file '{path.resolve()}'\n" for path in again * excerpts))
    how = ["-c", "copy"]
    if height:
        how = ["-vf", f"scale=-2:{height}", "-c:v", "libx264", "-preset", "veryfast", "-crf", "23"]
    command = [
        ffmpeg_program(), "-y", "-loglevel", "error", "-f", "concat", "-safe", "0", "-i", str(listed),
        "-t", str(duration_s), "-map", "0:v", *how, str(out),
    ]  # fmt: skip
    subprocess.run(command, check=True)


def describe(video: Path, dataset: Path) -> Source:
    """Count the frames of a video from its packets."""
    import av

    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        keys = [packet.is_keyframe for packet in container.demux(stream) if packet.pts is not None]
        rate = stream.average_rate or Fraction(24)
        return Source(
            video,
            len(keys),
            stream.width,
            stream.height,
            float(rate),
            float(len(keys) / rate),
            sum(keys),
            dataset,
        )


def wanted_indices(num_frames: int, count: int) -> np.ndarray:
    """Return ``count`` frames spread evenly, both ends included: the rule of the published training code."""
    return np.round(np.linspace(0, num_frames - 1, count)).astype(np.int64)


def write_strip(source: Source, folder: Path, *, count: int, size: int, quality: int) -> float:
    """Write the data set of one sample that holds ``count`` frames; return the CPU seconds that took."""
    from longvila.data import SampleWithFrames, write_dataset  # torch comes with it

    started = time.process_time()
    wanted = set(wanted_indices(source.num_frames, count).tolist())
    jpegs: list[FrameBlob] = []
    times: list[float] = []
    for index, (time_s, picture) in enumerate(iterate_frames(source.video, size=size)):
        if index in wanted:
            jpegs.append(pack_frames(picture[None], quality=quality))
            times.append(time_s)
    offsets = np.concatenate([[0], np.cumsum([len(one.data) for one in jpegs])]).astype(np.int64)
    sample = Sample(
        key="film",
        kind="video",
        split="train",
        conversations=(Turn(role="human", text="<frames>\nWhat happens?"), Turn(role="gpt", text="A film.")),
        frame_times_s=tuple(times),
    )
    blob = FrameBlob(b"".join(one.data for one in jpegs), offsets)
    write_dataset(open_storage(folder), SHARDS, "train", [SampleWithFrames(sample, blob)])
    return time.process_time() - started
