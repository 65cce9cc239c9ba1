"""Pictures and measures whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longvila.curation.duplicates.fingerprint import Fingerprint, Fingerprinter
from longvila.curation.sampling import SAMPLES_PER_S, Measures, Sampler
from longvila.records import Shot, Split, VideoRecord

# RGB of colours well inside their names' regions.
PAINT = {
    "black": (10, 10, 10),
    "white": (250, 250, 250),
    "grey": (128, 128, 128),
    "red": (210, 20, 20),
    "orange": (240, 140, 20),
    "brown": (110, 65, 30),
    "yellow": (230, 220, 40),
    "green": (40, 170, 50),
    "blue": (40, 90, 220),
    "purple": (130, 50, 200),
    "pink": (250, 150, 200),
}


def plain(colour: str, *, size: tuple[int, int] = (90, 160)) -> np.ndarray:
    """A picture of one colour."""
    return np.full((*size, 3), PAINT[colour], dtype=np.uint8)


def grey(level: float, *, size: tuple[int, int] = (90, 160)) -> np.ndarray:
    """A grey picture of that luma, 0 to 1."""
    return np.full((*size, 3), round(level * 255), dtype=np.uint8)


def split_picture(first: str, second: str, *, axis: int, share: float = 0.5) -> np.ndarray:
    """Two colours: the first above (axis 0) or left (axis 1) of the second."""
    picture = plain(second)
    edge = round(picture.shape[axis] * share)
    if axis == 0:
        picture[:edge] = PAINT[first]
    else:
        picture[:, :edge] = PAINT[first]
    return picture


def scene(seed: int, *, size: tuple[int, int] = (90, 160), blocks: int = 6) -> np.ndarray:
    """A picture of random coloured blocks: another view for every seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, size=(blocks, blocks, 3), dtype=np.uint8)
    rows = np.arange(size[0]) * blocks // size[0]
    columns = np.arange(size[1]) * blocks // size[1]
    return coarse[rows][:, columns]


def fingerprint_pictures(pictures: Sequence[np.ndarray]) -> Fingerprint:
    """The fingerprint of a video whose samples these are."""
    fingerprinter = Fingerprinter()
    for picture in pictures:
        fingerprinter.add(picture.mean(axis=2).astype(np.uint8))
    return fingerprinter.fingerprint()


def measure_pictures(pictures: Sequence[np.ndarray]) -> Measures:
    """Measure RGB pictures as if they were the samples of a video."""
    sampler = Sampler()
    for picture in pictures:
        bgr = np.ascontiguousarray(picture[..., ::-1])
        grey_HW = (picture.astype(np.float64) @ [0.299, 0.587, 0.114]).round().astype(np.uint8)
        sampler.add(bgr, grey_HW)
    return sampler.measures(np.arange(len(pictures)) / SAMPLES_PER_S)


def shots_at(video_id: str, duration_s: float, cuts_s: Sequence[float]) -> list[Shot]:
    """The shots between cuts."""
    edges = [0.0, *cuts_s, duration_s]
    return [
        Shot(shot_id=f"{video_id}-{i}", video_id=video_id, index=i, start_s=edges[i], stop_s=edges[i + 1])
        for i in range(len(edges) - 1)
    ]


def video_record(
    name: str, *, duration_s: float = 10.0, split: Split = "train", height: int = 360
) -> VideoRecord:
    """A video's record."""
    return VideoRecord(
        video_id=name, source_id=f"source-{name}", url="u", key=f"videos/{name}.mp4", sha256="0" * 64,
        size_bytes=1,
        container="mp4", codec="h264", width=height * 16 // 9, height=height, fps=24.0,
        num_frames=int(24 * duration_s), duration_s=duration_s, split=split,
    )  # fmt: skip
