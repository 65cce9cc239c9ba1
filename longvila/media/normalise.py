"""Videos that a decoder cannot seek in, encoded anew: H.264, a constant rate, upright, square pixels, MP4.

The new file begins with the first frame, and at every time it shows the picture that the old one showed at
that time, half a frame sooner or later at most. The same file with the same settings gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from longvila.errors import ItemError
from longvila.media.ffmpeg import even, file_url, mp4_options, open_input, run, whole_file
from longvila.media.opening import shown_name
from longvila.media.probe import INDEXED_CONTAINERS, Probe
from longvila.media.verify import MAX_GROUP_FRAMES

MODERN_CODECS = ("h264", "hevc", "vp8", "vp9", "av1")
_RATES = tuple(map(Fraction, (
    1, 2, 3, 4, 5, 6, 8, 10, 12, Fraction(25, 2), 15, 16, 18, 20, Fraction(24000, 1001), 24, 25,
    Fraction(30000, 1001), 30, 48, 50, Fraction(60000, 1001), 60, 90, 100, 120, 240,
)))  # fmt: skip
_KEPT_SHARE = 0.95  # of the frames of a variable rate that get a place of their own
_SAME_RATE = 1e-3
_ROUNDED_STEP, _ROUNDED_S = 0.1, 2e-3  # how far steps of a constant rate differ when clocks are coarse
_OFF_TICK = 0.1  # of a frame
_TOLERATED_AT_A_BAD_START = 0.2  # share of the frames that may fail to decode
_HDR_NAMES = {16: "smpte2084", 18: "arib-std-b67"}


@dataclass(frozen=True)
class Encoding:
    """How a video is encoded anew."""

    max_fps: float
    crf: int
    preset: str
    key_frame_every_s: float
    threads: int
    timeout_s: float
    max_pixels: int
    memory_bytes: int | None = None


def reasons_to_normalise(facts: Probe) -> tuple[str, ...]:
    """Say in words why a file should not be read as it is; empty when it may be."""
    found = (
        (facts.codec not in MODERN_CODECS, f"the codec {facts.codec}"),
        (facts.container not in INDEXED_CONTAINERS, f"the container {facts.container}"),
        (not facts.is_exact, "frames without times of their own"),
        (not facts.starts_clean, "a start inside a group of pictures"),
        (facts.is_variable_rate, "a variable frame rate"),
        (bool(facts.rotation) or facts.is_mirrored, "a turned picture"),
        (facts.pixel_aspect != 1, "pixels that are not square"),
        (facts.is_interlaced, "interlaced pictures"),
        (facts.is_hdr, "brightness coded for HDR"),
        (facts.longest_group > MAX_GROUP_FRAMES, f"{facts.longest_group} frames without a key frame"),
    )
    return tuple(words for holds, words in found if holds)


def constant_rate(times_s: np.ndarray, duration_s: float, *, max_fps: float) -> Fraction:
    """Return the frames per second that a video with frames at ``times_s`` is given, at most ``max_fps``.

    A constant rate is kept. For a variable one it is the lowest usual rate whose ticks all frames lie on;
    without one, the lowest at which nearly all frames keep a place of their own.
    """
    limit = Fraction(max_fps).limit_denominator(1001)
    if len(times_s) < 2:
        return min(max(Fraction(1), Fraction(round(1 / duration_s))), limit)
    mean = (len(times_s) - 1) / float(times_s[-1] - times_s[0])
    steps = np.diff(times_s)
    if steps.max() - steps.min() <= _ROUNDED_STEP * np.median(steps) + _ROUNDED_S:
        usual = min(_RATES, key=lambda rate: abs(float(rate) - mean))
        is_usual = abs(float(usual) / mean - 1) < _SAME_RATE
        exact = usual if is_usual else Fraction(mean).limit_denominator(1001)
        return min(max(exact, Fraction(1, 1001)), limit)
    fair = [rate for rate in _RATES if rate <= limit and _keeps_frames(times_s, rate)]
    return next((rate for rate in fair if _fits(times_s, rate)), fair[0] if fair else limit)


def _keeps_frames(times_s: np.ndarray, rate: Fraction) -> bool:
    places = np.floor(times_s * float(rate) + 0.5)
    return len(np.unique(places)) >= _KEPT_SHARE * len(times_s)


def _fits(times_s: np.ndarray, rate: Fraction) -> bool:
    places = times_s * float(rate)
    return bool(np.abs(places - np.round(places)).max() <= _OFF_TICK)


def normalise(
    path: Path, out: Path, facts: Probe, encoding: Encoding, *, name: str | None = None
) -> Fraction:
    """Encode ``path`` anew to ``out`` and return its frame rate. The file is whole or absent.

    Sound that cannot be decoded is left out. Raises ``ItemError``; reasons: unreadable, undecodable,
    too-slow-to-encode.
    """
    name = shown_name(name or path.name)
    rate = constant_rate(facts.times_s, facts.duration_s, max_fps=encoding.max_fps)
    try:
        _encode(path, out, facts, encoding, rate, name, sound=facts.has_audio)
    except ItemError as error:
        if not facts.has_audio or error.reason == "too-slow-to-encode":
            raise
        _encode(path, out, facts, encoding, rate, name, sound=False)
    return rate


def _encode(
    path: Path, out: Path, facts: Probe, encoding: Encoding, rate: Fraction, name: str, *, sound: bool
) -> None:
    import ffmpeg

    strict = {"err_detect": "explode"} if facts.starts_clean else {}
    source = open_input(
        path, threads=encoding.threads, max_pixels=encoding.max_pixels, reinit_filter=0, **strict
    )
    video = source[str(facts.stream_index)]
    for filter_name, options in _picture_filters(facts, rate):
        video = video.filter(filter_name, **options)
    streams = [video, _sound(source, facts)] if sound else [video]
    with whole_file(out) as part:
        run(
            ffmpeg.output(*streams, file_url(part), **_output_options(facts, encoding, rate, sound=sound)),
            name=name,
            threads=encoding.threads,
            timeout_s=encoding.timeout_s,
            max_error_share=0.0 if facts.starts_clean else _TOLERATED_AT_A_BAD_START,
            memory_bytes=encoding.memory_bytes,
        )


def _output_options(facts: Probe, encoding: Encoding, rate: Fraction, *, sound: bool) -> dict[str, Any]:
    options: dict[str, Any] = mp4_options(threads=encoding.threads) | {
        "crf": encoding.crf,
        "preset": encoding.preset,
        "pix_fmt": "yuv420p",
        "g": max(1, round(float(rate) * encoding.key_frame_every_s)),
        "fps_mode:v": "passthrough",
    }
    if facts.is_exact:
        options["frames:v"] = max(1, round(facts.duration_s * rate))
    if sound:
        options |= {"acodec": "aac", "audio_bitrate": "96k", "ac": 2, "ar": 48_000}
        if facts.is_exact:
            options["t"] = f"{facts.duration_s + 1 / float(rate):.6f}"
    return options


def _picture_filters(facts: Probe, rate: Fraction) -> list[tuple[str, dict[str, Any]]]:
    """The filters in their order. ffmpeg itself has turned the picture upright before the first."""
    size = {"w": even(facts.width), "h": even(facts.height), "out_range": "tv", "flags": "bicubic"}
    filters: list[tuple[str, dict[str, Any]]] = []
    if facts.is_interlaced:
        filters.append(("bwdif", {"mode": "send_frame", "deint": "interlaced"}))
    if facts.is_hdr:
        filters += _tone_mapping(facts.transfer)
    filters += [
        ("scale", size),
        ("setsar", {"sar": 1}),
        ("setpts", {"expr": "PTS-STARTPTS"}),
        ("fps", {"fps": f"{rate.numerator}/{rate.denominator}", "round": "near"}),
    ]
    if facts.is_exact:
        # How long the last frame is shown is not known everywhere; what is too much is cut off by the count.
        last_s = facts.duration_s - float(facts.times_s[-1]) + 1 / float(rate)
        filters.append(("tpad", {"stop_mode": "clone", "stop_duration": f"{last_s:.6f}"}))
    return filters


def _tone_mapping(transfer: int) -> list[tuple[str, dict[str, Any]]]:
    """From PQ or HLG to the brightness of ordinary video."""
    read = {"tin": _HDR_NAMES[transfer], "min": "bt2020nc", "pin": "bt2020", "rin": "tv"}
    return [
        ("zscale", {"t": "linear", "npl": 100, **read}),
        ("format", {"pix_fmts": "gbrpf32le"}),
        ("zscale", {"p": "bt709"}),
        ("tonemap", {"tonemap": "hable", "desat": 0}),
        ("zscale", {"t": "bt709", "m": "bt709", "r": "tv"}),
        ("format", {"pix_fmts": "yuv420p"}),
    ]


def _sound(source: Any, facts: Probe) -> Any:
    """The first audio stream, beginning with the picture: cut or filled with silence."""
    shifted = source["a:0"].filter("asetpts", f"PTS-STARTPTS+({facts.sound_delay_s:.6f})/TB")
    return shifted.filter("aresample", **{"async": 1, "first_pts": 0})


def check_same_length(before: Probe, after: Probe, *, name: str) -> None:
    """Raise ``ItemError`` "undecodable" when the encoding is shorter or longer than what was encoded."""
    tolerance_s = 1.0 / after.fps + 0.01
    if before.is_exact and abs(before.duration_s - after.duration_s) > tolerance_s:
        raise ItemError(
            "undecodable",
            f"{shown_name(name)}: of {before.duration_s:.2f} s only {after.duration_s:.2f} s can be decoded",
        )
