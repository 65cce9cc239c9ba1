"""How the arrays and the frames of one scan lie in a file: a plain .npz, written and read as a stream.

A day of video has gigabytes of frames, so they pass through a temporary file on their way in, and are mapped,
not read, on their way out. N frames, H × W pixels.
"""

from __future__ import annotations

import mmap
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from longvila.errors import InputError
from longvila.media.jpeg import FrameBlob, pack_frames
from longvila.storage.files import os_errors

_IN_MEMORY_BYTES = 16 * 2**20
_LOCAL_HEADER_BYTES = 30  # of an entry of a zip file, before its name and its extra field
_PARSING = threading.Lock()  # numpy reads headers with ast, which threads may not share in Python 3.11
_UNREADABLE = (ValueError, KeyError, OSError, zipfile.BadZipFile)


@dataclass(frozen=True)
class FrameStrip:
    """The frames of one video at the training rate and size, as JPEGs."""

    blob: FrameBlob
    times_s: np.ndarray  # float64 [N]

    def part(self, start: int, stop: int) -> FrameBlob:
        """Return the frames ``[start, stop)`` without encoding them again."""
        offsets = self.blob.offsets[start : stop + 1]
        return FrameBlob(bytes(self.blob.data[int(offsets[0]) : int(offsets[-1])]), offsets - offsets[0])


class StripSpool:
    """Takes frames one by one, to be shown at ``times_s``, and keeps their JPEGs out of memory."""

    def __init__(self, times_s: np.ndarray, *, quality: int) -> None:
        self.times_s = times_s
        self._quality = quality
        self._sizes: list[int] = []
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 (kept open)

    @property
    def num_frames(self) -> int:
        """How many frames were taken."""
        return len(self._sizes)

    @property
    def offsets(self) -> np.ndarray:
        """Where each JPEG begins and the last ends, int64 ``[N + 1]``."""
        return np.concatenate([[0], np.cumsum(np.asarray(self._sizes, dtype=np.int64))]).astype(np.int64)

    def add(self, picture_HW3: np.ndarray, *, times: int) -> None:
        """Take an RGB uint8 picture that is shown at so many of the times."""
        jpeg = pack_frames(picture_HW3[None], quality=self._quality).data
        with os_errors(f"write frames to {tempfile.gettempdir()}"):
            for _ in range(int(times)):
                self._file.write(jpeg)
                self._sizes.append(len(jpeg))

    def copy_to(self, file: IO[bytes]) -> None:
        """Write all JPEGs, one after another."""
        self._file.seek(0)
        shutil.copyfileobj(cast(IO[bytes], self._file), file, 2**20)

    def close(self) -> None:
        """Let go of the temporary file."""
        self._file.close()


def write_scan(path: Path, arrays: Mapping[str, np.ndarray], strips: Mapping[str, StripSpool]) -> None:
    """Write arrays and strips to a new file; the same content gives the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)
        for name, strip in strips.items():
            for part, array in (("offsets", strip.offsets), ("times", strip.times_s)):
                with archive.open(f"{name}_{part}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
            header = {"descr": "|u1", "fortran_order": False, "shape": (int(strip.offsets[-1]),)}
            with archive.open(f"{name}_data.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_1_0(entry, header)
                strip.copy_to(entry)


def read_arrays(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Read arrays of a scan; ``InputError`` when it is damaged."""
    try:
        with _PARSING, np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def read_strip(path: Path, name: str) -> FrameStrip:
    """Open a strip of a scan; its JPEGs stay on the disk until they are asked for."""
    arrays = read_arrays(path, [f"{name}_offsets", f"{name}_times"])
    try:
        data = _mapped(path, f"{name}_data.npy")
        if len(data) != arrays[f"{name}_offsets"][-1]:
            raise ValueError(f"{name} has {len(data)} bytes, not {arrays[f'{name}_offsets'][-1]}")
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    return FrameStrip(FrameBlob(cast(bytes, data), arrays[f"{name}_offsets"]), arrays[f"{name}_times"])


def _mapped(path: Path, entry: str) -> memoryview:
    """Map the bytes of an uncompressed uint8 array."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(entry)
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
        file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
        np.lib.format.read_magic(file)
        with _PARSING:
            (size,), _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype != np.uint8 or info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{entry} is {dtype}, compression {info.compress_type}, not plain bytes")
        start = file.tell()
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return whole[start : start + size]


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"The scan {path} is damaged ({error}). Delete it and build again.")
