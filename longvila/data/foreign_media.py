"""Videos and pictures as they lie in foreign tars: bytes that nobody has looked at before."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from longvila.errors import ItemError
from longvila.media.decode import decode_frames, sample_times
from longvila.media.probe import probe

MAX_PIXELS = 100_000_000


def frame_times(path: Path, *, fps: float, max_frames: int) -> tuple[float, ...]:
    """Return the times at which frames of a video are taken; ``ItemError`` when it cannot be used.

    Of a long video ``max_frames`` are spread evenly.
    """
    times_s = sample_times(probe(path).duration_s, fps)
    if len(times_s) > max_frames:
        times_s = times_s[np.linspace(0, len(times_s) - 1, max_frames).round().astype(np.int64)]
    return tuple(times_s.tolist())


def decode_video(data: bytes, times_s: np.ndarray, *, size: int | None) -> np.ndarray:
    """Decode the frames shown at ``times_s`` to uint8 ``[N, H, W, 3]``."""
    with as_file(data) as path:
        return decode_frames(path, times_s, size=size)


def decode_picture(data: bytes, *, size: int | None) -> np.ndarray:
    """Decode a JPEG, PNG or WebP to uint8 RGB ``[H, W, 3]``; ``ItemError`` when it is none or damaged."""
    from PIL import Image

    check_picture(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            picture = image.convert("RGB")
            if size is not None:
                picture = picture.resize((size, size), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError) as error:
        raise ItemError("undecodable", f"the picture is damaged ({error})") from error
    return np.asarray(picture)


def check_picture(data: bytes) -> None:
    """Look at a picture's header; raise ``ItemError`` when it is none, or would fill the memory."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ItemError("not-a-picture", "it is no JPEG, PNG or WebP that can be read") from error
    if width * height > MAX_PIXELS:
        raise ItemError("too-large", f"it has {width}×{height} pixels, more than {MAX_PIXELS}")


@contextmanager
def as_file(data: bytes) -> Iterator[Path]:
    """Give bytes as a file, which the decoder wants."""
    with tempfile.NamedTemporaryFile(suffix=".media") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)
