"""Encoding with the ffmpeg program that imageio-ffmpeg carries, driven by ffmpeg-python.

Arguments go as a list, never through a shell; a path is always ``file:…``, so that no name is taken for an
option, an address or a pattern; of protocols only files are allowed.
"""

from __future__ import annotations

import logging
import os
import resource
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longvila.errors import InputError, ItemError, MachineError
from longvila.media.opening import FORMATS, PROTOCOLS, file_url, shown_name

logger = logging.getLogger(__name__)

TIMEOUT_S = 3600.0
_LAST_LINES = 3
_TOO_MANY_ERRORS = 69  # ffmpeg's exit code for max_error_rate


def ffmpeg_program() -> str:
    """Return the path of the ffmpeg program; ``MachineError`` when there is none."""
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise MachineError(
            "No ffmpeg program was found. Install imageio-ffmpeg with its binary, or set IMAGEIO_FFMPEG_EXE."
        ) from error


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
    threads: int | None = None,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Encode a video anew as H.264 (and AAC), optionally at another height or frame rate.

    The file is whole or absent. ``threads`` is how many cores may be used, None for all. Raises ``ItemError``
    when ffmpeg cannot read the input or takes longer than ``timeout_s``.
    """
    import ffmpeg

    if not path.is_file():
        raise InputError(f"There is no video file {path}. Check the path.")
    span = {k: v for k, v in {"ss": start_s, "t": duration_s}.items() if v is not None}
    source = open_input(path, threads=threads, **span)
    video = source.video
    if height is not None:
        video = video.filter("scale", -2, height)
    if fps is not None:
        video = video.filter("fps", fps)
    streams = [video, source["a?"]] if audio else [video]
    options: dict[str, Any] = {"crf": crf, "pix_fmt": "yuv420p"}
    if audio:
        options |= {"acodec": "aac", "audio_bitrate": "64k"}
    with whole_file(out) as part:
        run(
            ffmpeg.output(*streams, file_url(part), **mp4_options(threads=threads), **options),
            name=path.name,
            threads=threads,
            timeout_s=timeout_s,
        )


def open_input(path: Path, *, threads: int | None = None, **options: Any) -> Any:
    """Return an ffmpeg-python input that reads just this file; ``options`` are ffmpeg's, for the input."""
    import ffmpeg

    limits = {"protocol_whitelist": PROTOCOLS, "format_whitelist": FORMATS}
    if threads is not None:
        limits["threads"] = str(threads)
    return ffmpeg.input(file_url(path), **limits, **options)


def even(size: int) -> int:
    """Return the nearest even number of pixels, which H.264 needs; at least 2."""
    return max(2, round(size / 2) * 2)


def mp4_options(*, threads: int | None) -> dict[str, Any]:
    """Return ffmpeg's options for an MP4 of H.264 that is the same bytes each time with the same threads."""
    options: dict[str, Any] = {
        "format": "mp4",
        "vcodec": "libx264",
        "movflags": "+faststart",
        "fflags": "+bitexact",
        "flags:v": "+bitexact",
        "flags:a": "+bitexact",
        "map_metadata": -1,
        "map_chapters": -1,
    }
    if threads is not None:
        options["threads"] = threads
    return options


def run(
    graph: Any,
    *,
    name: str,
    timeout_s: float,
    threads: int | None = None,
    max_error_share: float | None = None,
    memory_bytes: int | None = None,
) -> None:
    """Run an ffmpeg-python graph to its end.

    ``name`` is what messages call the input; ``max_error_share`` the share of frames that may fail to decode.
    Raises ``ItemError`` "unreadable" with ffmpeg's last words, "undecodable" when too many frames fail,
    "too-slow-to-encode" after ``timeout_s``; ``MachineError`` when the disk is full.
    """
    words = ["-nostdin", "-hide_banner", "-loglevel", "error"]
    if threads is not None:
        words += ["-filter_threads", str(threads), "-filter_complex_threads", str(threads)]
    if max_error_share is not None:
        words += ["-max_error_rate", f"{max_error_share:.6f}"]
    command = graph.global_args(*words).overwrite_output()
    process = command.run_async(cmd=ffmpeg_program(), pipe_stdin=True, pipe_stdout=True, pipe_stderr=True)
    try:
        if memory_bytes is not None:
            _limit_memory(process.pid, memory_bytes)
        _, said = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ItemError(
            "too-slow-to-encode", f"{shown_name(name)}: ffmpeg was not done after {timeout_s:,.0f} s"
        ) from error
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode != 0:
        raise _explain(said.decode(errors="replace"), process.returncode, shown_name(name))


@contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """Give a path beside ``out`` that takes its name only when the block succeeds."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{secrets.token_hex(8)}{out.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _limit_memory(pid: int, memory_bytes: int) -> None:
    try:
        resource.prlimit(pid, resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    except (ProcessLookupError, PermissionError, ValueError):  # it has ended already, or may not be limited
        logger.debug("the memory of process %d is not limited", pid)


def _explain(said: str, code: int, name: str) -> ItemError | MachineError:
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return MachineError(f"The disk is full: cannot encode {name}. Free space, or use another disk.")
    if code == _TOO_MANY_ERRORS:
        return ItemError("undecodable", f"{name}: some of its frames are damaged")
    if code < 0:
        return ItemError("unreadable", f"{name}: ffmpeg crashed on it (signal {-code})")
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()][-_LAST_LINES:]
    words = shown_name("; ".join(lines)) or f"nothing, and ends with code {code}"
    return ItemError("unreadable", f"{name}: ffmpeg says: {words}")
