"""Spans of a video as files of their own, exact to the frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from longvila.errors import InputError, ItemError
from longvila.media.ffmpeg import TIMEOUT_S, even, file_url, mp4_options, open_input, run, whole_file
from longvila.media.opening import shown_name
from longvila.media.probe import Probe, probe

_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_STREAMS = ("mpegts", "mpeg")
_PRE_ROLL_S = 1.0


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
    timeout_s: float = TIMEOUT_S,
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
