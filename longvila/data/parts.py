"""One sample as the parts of a WebDataset tar, byte for byte the same each time.

``KEY.frames.bin`` (JPEGs one after another), ``KEY.json`` (the record), ``KEY.offsets.npy`` (int64 [N + 1],
where each JPEG begins) and ``KEY.times.npy`` (float64 [N], seconds). Without frames there is the JSON alone.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import BinaryIO, NamedTuple

import numpy as np

from longvila.media.jpeg import FrameBlob
from longvila.records import Sample

FRAMES, JSON, OFFSETS, TIMES = "frames.bin", "json", "offsets.npy", "times.npy"


class SampleWithFrames(NamedTuple):
    """A sample and its encoded frames; none for a text sample."""

    sample: Sample
    frames: FrameBlob | None = None


class Place(NamedTuple):
    """Bytes ``[offset, offset + size)`` of a tar."""

    offset: int
    size: int


def parts_of(item: SampleWithFrames) -> dict[str, bytes]:
    """Return the parts of a sample by extension, sorted."""
    sample, blob = item
    num_frames = 0 if blob is None else blob.num_frames
    if num_frames != sample.num_frames:
        raise ValueError(f"sample {sample.key}: {sample.num_frames} frame times, but {num_frames} frames")
    parts = {JSON: sample.model_dump_json().encode()}
    if blob is not None:
        parts[FRAMES] = blob.data
        parts[OFFSETS] = npy_bytes(np.asarray(blob.offsets, dtype="<i8"))
        parts[TIMES] = npy_bytes(np.array(sample.frame_times_s, dtype="<f8"))
    return dict(sorted(parts.items()))


def sample_hash(parts: dict[str, bytes]) -> str:
    """Return the sha256 over all parts of a sample, with their names and sizes."""
    digest = hashlib.sha256()
    for extension, data in sorted(parts.items()):
        digest.update(f"{extension}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


def foreign_digest(record: bytes, media: str, media_bytes: int) -> hashlib._Hash:
    """Return the sha256 of a foreign sample, to be updated with the bytes of its video or picture."""
    return hashlib.sha256(f"{JSON}:{len(record)}:".encode() + record + f"{media}:{media_bytes}:".encode())


def npy_bytes(array: np.ndarray) -> bytes:
    """Return the ``.npy`` file of an array."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def read_npy(data: bytes) -> np.ndarray:
    """Return the array of a ``.npy`` file; ``ValueError`` when it is damaged."""
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


class TarWriter:
    """Writes a tar whose bytes depend on names and contents only: no time, no owner."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def add(self, name: str, data: bytes) -> Place:
        """Append one file and return where its content lies."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o444
        self._write(info.tobuf(tarfile.PAX_FORMAT))
        place = Place(self.size_bytes, len(data))
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return place

    def close(self) -> str:
        """Write the end of the archive and return the sha256 of all of it; the file stays open."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self.size_bytes % tarfile.RECORDSIZE))
        return self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)
