"""Frames as one blob of JPEGs with an offset array, so that any of them can be read and decoded alone.

N frames of a blob, n of them asked for, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg

from longvila.errors import InputError


class FrameBlob(NamedTuple):
    """The JPEGs of N frames one after another: frame ``i`` is ``data[offsets[i]:offsets[i + 1]]``."""

    data: bytes
    offsets: np.ndarray  # int64 [N + 1], from 0

    @property
    def num_frames(self) -> int:
        """How many frames the blob holds."""
        return len(self.offsets) - 1


def pack_frames(
    frames_NHW3: np.ndarray, *, quality: int, subsampling: Literal["444", "422", "420"] = "444"
) -> FrameBlob:
    """Encode uint8 RGB frames ``[N, H, W, 3]``.

    Colour is kept at full resolution by default: the frames are small already, and coloured detail matters.
    """
    if frames_NHW3.dtype != np.uint8 or frames_NHW3.ndim != 4 or frames_NHW3.shape[3] != 3:
        raise ValueError(f"frames must be uint8 [N, H, W, 3], not {frames_NHW3.dtype} {frames_NHW3.shape}")
    jpegs = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=quality, colorsubsampling=subsampling)
        for frame in frames_NHW3
    ]
    offsets = np.zeros(len(jpegs) + 1, dtype=np.int64)
    np.cumsum([len(jpeg) for jpeg in jpegs], out=offsets[1:])
    return FrameBlob(b"".join(jpegs), offsets)


def decode_frame(jpeg: bytes | memoryview) -> np.ndarray:
    """Decode one JPEG to uint8 RGB ``[H, W, 3]``; ``InputError`` when it is damaged."""
    try:
        return simplejpeg.decode_jpeg(jpeg, colorspace="RGB", strict=True)
    except ValueError as error:
        raise InputError(f"a frame is not a whole JPEG ({error}). Build its shard again.") from error


def decode_frames(jpegs: Sequence[bytes | memoryview]) -> np.ndarray:
    """Decode JPEGs of one size to uint8 ``[n, H, W, 3]``; no JPEG gives ``[0, 0, 0, 3]``."""
    if not jpegs:
        return np.zeros((0, 0, 0, 3), dtype=np.uint8)
    first = decode_frame(jpegs[0])
    frames_nHW3 = np.empty((len(jpegs), *first.shape), dtype=np.uint8)
    frames_nHW3[0] = first
    for i, jpeg in enumerate(jpegs[1:], start=1):
        frame = decode_frame(jpeg)
        if frame.shape != first.shape:
            raise InputError(
                f"frames differ in size: {frame.shape[:2]} and {first.shape[:2]}. Build the shard again."
            )
        frames_nHW3[i] = frame
    return frames_nHW3


def unpack_frames(data: bytes, offsets: np.ndarray, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Decode the frames ``indices`` of a blob to uint8 ``[n, H, W, 3]``."""
    view = memoryview(data)
    return decode_frames([view[int(offsets[i]) : int(offsets[i + 1])] for i in indices])
