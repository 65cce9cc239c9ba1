"""Frames as one blob of JPEGs with an offset array, so that any of them can be read and decoded alone.

N frames of a blob, n of them asked for, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg

from longvila.errors import InputError

FULL_COLOUR_BELOW = 128  # pixels of the shorter side
Subsampling = Literal["auto", "444", "422", "420"]


class FrameBlob(NamedTuple):
    """The JPEGs of N frames one after another: frame ``i`` is ``data[offsets[i]:offsets[i + 1]]``."""

    data: bytes
    offsets: np.ndarray  # int64 [N + 1], from 0

    @property
    def num_frames(self) -> int:
        """How many frames the blob holds."""
        return len(self.offsets) - 1


def pack_frames(frames_NHW3: np.ndarray, *, quality: int, subsampling: Subsampling = "auto") -> FrameBlob:
    """Encode uint8 RGB frames ``[N, H, W, 3]``.

    By default small frames keep their colour at full resolution, because coloured detail matters there; from
    ``FULL_COLOUR_BELOW`` pixels on it has half the resolution, as in nearly every video: a fifth fewer bytes,
    and a third less time to decode.
    """
    if frames_NHW3.dtype != np.uint8 or frames_NHW3.ndim != 4 or frames_NHW3.shape[3] != 3:
        raise ValueError(f"frames must be uint8 [N, H, W, 3], not {frames_NHW3.dtype} {frames_NHW3.shape}")
    if subsampling == "auto":
        subsampling = "444" if min(frames_NHW3.shape[1:3]) < FULL_COLOUR_BELOW else "420"
    jpegs = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=quality, colorsubsampling=subsampling)
        for frame in frames_NHW3
    ]
    offsets = np.zeros(len(jpegs) + 1, dtype=np.int64)
    np.cumsum([len(jpeg) for jpeg in jpegs], out=offsets[1:])
    return FrameBlob(b"".join(jpegs), offsets)


class WrongSize(InputError):
    """A frame has another size than was asked for, or than the others."""

    def __init__(self, found: tuple[int, int], wanted: tuple[int, int]) -> None:
        super().__init__(
            f"frames differ in size: {found[0]}×{found[1]} and {wanted[0]}×{wanted[1]} (height × width). "
            "Build the shard again."
        )
        self.found = found


def decode_frame(jpeg: bytes | memoryview, *, out_HW3: np.ndarray | None = None) -> np.ndarray:
    """Decode one JPEG to uint8 RGB ``[H, W, 3]``, into ``out_HW3`` (contiguous) if it is given.

    Raises ``InputError`` when it is damaged, ``WrongSize`` when it is not as large as ``out_HW3``.
    """
    try:
        frame_HW3 = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", strict=True, buffer=out_HW3)
    except ValueError as error:
        if out_HW3 is not None:
            _check_size(jpeg, out_HW3)
        raise InputError(f"a frame is not a whole JPEG ({error}). Build its shard again.") from error
    if out_HW3 is not None and frame_HW3.shape != out_HW3.shape:
        raise WrongSize(frame_HW3.shape[:2], out_HW3.shape[:2])
    return frame_HW3


def decode_frames(jpegs: Sequence[bytes | memoryview], *, out_nHW3: np.ndarray | None = None) -> np.ndarray:
    """Decode JPEGs of one size to uint8 ``[n, H, W, 3]``; no JPEG gives ``[0, 0, 0, 3]``.

    They are decoded right into ``out_nHW3`` (contiguous), if it is given.
    """
    if not jpegs:
        return np.zeros((0, 0, 0, 3), dtype=np.uint8) if out_nHW3 is None else out_nHW3
    if out_nHW3 is None:
        first = decode_frame(jpegs[0])
        out_nHW3 = np.empty((len(jpegs), *first.shape), dtype=np.uint8)
    if len(out_nHW3) != len(jpegs):
        raise ValueError(f"room for {len(out_nHW3)} frames was given for {len(jpegs)}")
    for jpeg, out_HW3 in zip(jpegs, out_nHW3, strict=True):
        decode_frame(jpeg, out_HW3=out_HW3)
    return out_nHW3


def _check_size(jpeg: bytes | memoryview, out_HW3: np.ndarray) -> None:
    """Tell a sound JPEG that does not fit from a damaged one."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError:
        return
    if (height, width) != out_HW3.shape[:2]:
        raise WrongSize((int(height), int(width)), out_HW3.shape[:2])


def unpack_frames(data: bytes, offsets: np.ndarray, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Decode the frames ``indices`` of a blob to uint8 ``[n, H, W, 3]``."""
    view = memoryview(data)
    return decode_frames([view[int(offsets[i]) : int(offsets[i + 1])] for i in indices])
