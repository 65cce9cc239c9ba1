"""Very small pictures of decoded frames, cheaply: a detector looks at every frame of a video.

A scaler that reads all pixels costs as much as decoding. Here a few samples, each the mean of four pixels,
are spread over every pixel of the small picture, and colours are converted after it is small.
H × W pixels of the small picture.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from longvila.media.decode import to_picture

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_PLANAR = frozenset(f"yuv{j}{layout}p" for j in ("", "j") for layout in ("420", "422", "444"))
_SAMPLES = 4  # per side and small pixel, where the frame has as many
_BT709 = 1
_FULL_RANGE = 2


def small_picture(frame: VideoFrame, rotation: int, shape: tuple[int, int]) -> np.ndarray:
    """Convert a decoded frame to RGB uint8 ``[H, W, 3]`` of ``shape``, upright; its aspect is not kept."""
    height, width = shape if rotation in (0, 180) else shape[::-1]
    if frame.format.name not in _PLANAR or frame.height < height or frame.width < width:
        return np.ascontiguousarray(to_picture(frame, rotation, shape))
    yuv_HW3 = cv2.merge([_shrink(_plane(frame, i), height, width) for i in range(3)])
    is_full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
    picture = cv2.transform(yuv_HW3, _to_rgb(is_full, frame.colorspace == _BT709))
    return np.ascontiguousarray(np.rot90(picture, k=-rotation // 90)) if rotation else picture


def _plane(frame: VideoFrame, index: int) -> np.ndarray:
    plane = frame.planes[index]
    padded = np.frombuffer(cast(bytes, plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
    return padded[:, : plane.width]


def _shrink(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    samples = max(1, min(_SAMPLES, plane.shape[0] // (2 * height), plane.shape[1] // (2 * width)))
    sampled = cv2.resize(plane, (width * samples, height * samples), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(sampled, (width, height), interpolation=cv2.INTER_AREA) if samples > 1 else sampled


@lru_cache(maxsize=4)
def _to_rgb(is_full: bool, is_bt709: bool) -> np.ndarray:
    """Return the matrix ``[3, 4]`` from (Y, Cb, Cr, 1) of 0 to 255 to R, G, B of 0 to 255."""
    red, blue = (0.2126, 0.0722) if is_bt709 else (0.299, 0.114)
    green = 1.0 - red - blue
    luma, chroma, black = (1.0, 1.0, 0.0) if is_full else (255 / 219, 255 / 224, 16.0)
    to_red, to_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    rows = np.array(
        [
            [luma, 0.0, to_red],
            [luma, -to_blue * blue / green, -to_red * red / green],
            [luma, to_blue, 0.0],
        ]
    )
    offsets = -rows @ np.array([black, 128.0, 128.0])
    return np.column_stack([rows, offsets]).astype(np.float32)
