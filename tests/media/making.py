"""Small videos whose content is known, made for tests."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from longvila.media.ffmpeg import ffmpeg_program

DEMO = Path(__file__).resolve().parents[2] / "datasets" / "demo" / "videos"


def grey_ramp(count: int, *, size: tuple[int, int] = (48, 64), step: int = 6) -> list[np.ndarray]:
    """Frames that tell their own number: frame i is grey ``10 + step * i``, its top left corner white."""
    frames = []
    for i in range(count):
        frame = np.full((*size, 3), 10 + step * i, dtype=np.uint8)
        frame[: size[0] // 4, : size[1] // 4] = 255
        frames.append(frame)
    return frames


def number_of(picture: np.ndarray, *, step: int = 6) -> int:
    """Read a ramp frame's number from its lower right quarter."""
    height, width = picture.shape[:2]
    return round((float(picture[height // 2 :, width // 2 :].mean()) - 10) / step)


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    fps: int = 10,
    codec: str = "libx264",
    times_ms: Sequence[int] | None = None,
    gop: int = 8,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB frames; with ``times_ms`` each frame has its own time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop
        stream.options = {"crf": "8"} if codec == "libx264" else {}
        stream.options |= options or {}
        if codec != "libx264":
            stream.bit_rate = 2_000_000
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times_ms is not None:
                frame.time_base = Fraction(1, 1000)
                frame.pts = times_ms[i]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def ffmpeg(*arguments: str | Path) -> None:
    """Run the ffmpeg program."""
    command = [ffmpeg_program(), "-nostdin", "-y", "-v", "error", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=60)
