"""Cutting and re-encoding with the ffmpeg program that imageio-ffmpeg carries, driven by ffmpeg-python.

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

import numpy as np

from longvila.errors import InputError, ItemError, MachineError
from longvila.media.opening import FORMATS, PROTOCOLS, file_url, shown_name
from longvila.media.probe import Probe, probe

logger = logging.getLogger(__name__)

CUT_TIMEOUT_S = 3600.0
_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_STREAMS = ("mpegts", "mpeg")
_PRE_ROLL_S = 1.0
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


def cut(
    path: Path,
    out: Path,
    *,
    start_s: float,
    stop_s: float,
    crf: int = 20,
    preset: str = "medium",
    audio: bool = True,
    facts: Probe | None = None,
    threads: int | None = None,
    timeout_s: float = CUT_TIMEOUT_S,
) -> int:
    """Write the frames shown in ``[start_s, stop_s)`` to ``out`` and return how many they are.

    Times count from the first frame, as everywhere. Exact to the frame, so it is encoded anew, as H.264 in
    MP4. ``facts`` saves probing it again. Raises ``InputError`` for a span that is empty or begins behind
    the end, ``ItemError`` when ffmpeg cannot read the file.
    """
    if not 0 <= start_s < stop_s:
        raise InputError(f"the span [{start_s}, {stop_s}) s is empty. Give 0 <= start_s < stop_s.")
    facts = facts or probe(path)
    first, count = _frames_in(facts, start_s, stop_s)
    with whole_file(out) as part:
        graph = _cut_graph(path, part, facts, first, count, crf, preset, audio=audio, threads=threads)
        run(graph, name=path.name, threads=threads, timeout_s=timeout_s)
        found = probe(part).num_frames
        if found != count:
            words = f"{found} of the {count} frames in [{start_s:.2f}, {stop_s:.2f}) s can be decoded"
            raise ItemError("undecodable", f"{shown_name(path.name)}: {words}")
    return count


def _frames_in(facts: Probe, start_s: float, stop_s: float) -> tuple[int, int]:
    """The first frame that begins in a span, and how many do; a frame at the very start belongs to it."""
    near_s = 0.25 / facts.fps
    first, stop = np.searchsorted(facts.times_s, (start_s - near_s, stop_s - near_s))
    if first == stop:
        raise InputError(
            f"no frame begins in [{start_s}, {stop_s}) s of a video of {facts.duration_s:.3f} s. "
            "Give a longer span inside it."
        )
    return int(first), int(stop - first)


def _cut_graph(
    path: Path,
    out: Path,
    facts: Probe,
    first: int,
    count: int,
    crf: int,
    preset: str,
    *,
    audio: bool,
    threads: int | None,
) -> Any:
    import ffmpeg

    half_s = 0.5 / facts.fps
    times_s = facts.times_s
    # Half a frame early, for times are rounded on their way; in ffmpeg's clock, which begins with the file.
    start_s = max(0.0, float(times_s[first]) - half_s + facts.start_s - facts.file_start_s)
    stop_s = float(times_s[first + count]) if first + count < facts.num_frames else facts.duration_s
    length_s = stop_s - float(times_s[first])
    seek_s = _seek_to(facts, first, start_s)
    at_s = start_s - seek_s
    source = open_input(path, threads=threads, **({"ss": f"{seek_s:.6f}"} if seek_s else {}))
    video = source[str(facts.stream_index)]
    if at_s > 0:
        video = video.filter("trim", start=f"{at_s:.6f}")
    if facts.width % 2 or facts.height % 2 or facts.pixel_aspect != 1:
        video = video.filter("scale", w=even(facts.width), h=even(facts.height)).filter("setsar", sar=1)
    streams = [video.filter("setpts", "PTS-STARTPTS")]
    options: dict[str, Any] = {"crf": crf, "preset": preset, "pix_fmt": "yuv420p", "frames:v": count}
    options["fps_mode:v"] = "passthrough"
    if audio and facts.has_audio:
        begin_s = at_s + (half_s if start_s else 0.0)
        sound = source["a:0"].filter("atrim", start=f"{begin_s:.6f}", end=f"{begin_s + length_s:.6f}")
        streams.append(sound.filter("asetpts", f"PTS-{begin_s:.6f}/TB"))
        options |= {"acodec": "aac", "audio_bitrate": "96k"}
    return ffmpeg.output(*streams, file_url(out), **mp4_options(threads=threads), **options)


def _seek_to(facts: Probe, first: int, start_s: float) -> float:
    """Where ffmpeg is to begin, in its clock. Without an index it may land behind the key frame."""
    if facts.container in _SEEKABLE:
        return start_s
    if facts.container not in _STREAMS or not facts.is_exact:
        return 0.0
    key = int(np.searchsorted(facts.keyframe_pts, facts.pts[first], side="right")) - 1
    key_s = float((int(facts.keyframe_pts[max(key, 0)]) - int(facts.pts[0])) * facts.time_base)
    return max(0.0, key_s + facts.start_s - facts.file_start_s - _PRE_ROLL_S)


def even(size: int) -> int:
    """Return the nearest even number of pixels, which H.264 needs; at least 2."""
    return max(2, round(size / 2) * 2)


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
    timeout_s: float = CUT_TIMEOUT_S,
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
