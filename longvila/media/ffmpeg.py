"""Cutting and re-encoding with the ffmpeg program that imageio-ffmpeg carries, driven by ffmpeg-python."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longvila.errors import InputError, ItemError, MachineError


def ffmpeg_program() -> str:
    """Return the path of the ffmpeg program; ``MachineError`` when there is none."""
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise MachineError(
            "No ffmpeg program was found. Install imageio-ffmpeg with its binary, or set IMAGEIO_FFMPEG_EXE."
        ) from error


def cut(path: Path, out: Path, *, start_s: float, stop_s: float, crf: int = 20, audio: bool = True) -> None:
    """Write ``[start_s, stop_s)`` of a video to ``out``, exact to the frame (so it is encoded anew).

    Raises ``InputError`` for an empty span, ``ItemError`` when ffmpeg cannot read the file.
    """
    if not 0 <= start_s < stop_s:
        raise InputError(f"the span [{start_s}, {stop_s}) s is empty. Give 0 <= start_s < stop_s.")
    transcode(path, out, crf=crf, audio=audio, start_s=start_s, duration_s=stop_s - start_s)


def transcode(
    path: Path,
    out: Path,
    *,
    height: int | None = None,
    fps: float | None = None,
    crf: int = 23,
    audio: bool = True,
    start_s: float | None = None,
    duration_s: float | None = None,
) -> None:
    """Encode a video anew as H.264 (and AAC), optionally at another height or frame rate.

    The file is whole or absent. Raises ``ItemError`` when ffmpeg cannot read the input.
    """
    import ffmpeg

    if not path.is_file():
        raise InputError(f"There is no video file {path}. Check the path.")
    source = ffmpeg.input(
        str(path), **{k: v for k, v in {"ss": start_s, "t": duration_s}.items() if v is not None}
    )
    video = source.video
    if height is not None:
        video = video.filter("scale", -2, height)
    if fps is not None:
        video = video.filter("fps", fps)
    streams = [video, source["a?"]] if audio else [video]
    options: dict[str, Any] = {
        "vcodec": "libx264", "crf": crf, "pix_fmt": "yuv420p", "movflags": "+faststart", "loglevel": "error"
    }  # fmt: skip
    if audio:
        options |= {"acodec": "aac", "audio_bitrate": "64k"}
    with _whole(out) as part:
        _run(ffmpeg.output(*streams, str(part), **options), path)


def _run(graph: Any, path: Path) -> None:
    import ffmpeg

    try:
        graph.run(cmd=ffmpeg_program(), capture_stdout=True, capture_stderr=True, overwrite_output=True)
    except ffmpeg.Error as error:
        lines = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        raise ItemError("unreadable", f"{path.name}: ffmpeg says: {lines[-1] if lines else error}") from error


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """Give a path beside ``out`` that takes its name only when the block succeeds."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.stem}-{secrets.token_hex(4)}{out.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
