"""What is refused, with which word, and what is not."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from longvila.errors import ItemError
from longvila.media.ffmpeg import ffmpeg_program
from longvila.media.inspection import Inspection, Limits, inspect
from longvila.media.probe import probe
from longvila.media.still import is_still
from tests.media.making import DEMO, ffmpeg, grey_ramp, write_video


def look(path: Path, **limits: float) -> Inspection:
    return inspect(path, name="my film", limits=Limits(**limits))  # pyright: ignore[reportArgumentType]


def reason(path: Path, **limits: float) -> str:
    with pytest.raises(ItemError) as caught:
        look(path, **limits)
    assert "my film" in caught.value.detail
    return caught.value.reason


def patched(path: Path, box: bytes, offset: int, layout: str, *values: int) -> Path:
    """Write numbers into a box of an MP4, ``offset`` bytes behind its name."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, data.index(box) + 4 + offset, *values)
    path.write_bytes(data)
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "a.mp4", grey_ramp(30), fps=10, gop=10)


HEADERS = {
    "lasts 100 hours": (b"mvhd", 16, ">I", (360_000_000,), "absurd-header"),
    "has no size": (b"avc1", 24, ">HH", (0, 0), "absurd-header"),
    "is one pixel": (b"avc1", 24, ">HH", (1, 1), "absurd-header"),
    "is larger than any screen": (b"avc1", 24, ">HH", (65535, 65535), "too-many-pixels"),
    "ticks a billion times a second": (b"mdhd", 12, ">I", (4_000_000_000,), "absurd-header"),
    "ticks once a second": (b"mdhd", 12, ">I", (1,), "absurd-header"),
    "frames last a year": (b"stts", 12, ">I", (0x7FFFFFFF,), "absurd-header"),
    "frames are gigabytes": (b"stsz", 12, ">I", (0x7FFFFFFF,), "no-frames"),
}


@pytest.mark.parametrize("claim", HEADERS)
def test_a_header_that_cannot_be_true(video, claim):
    box, offset, layout, values, word = HEADERS[claim]
    if box == b"avc1":  # the sample description, not the brand of the same name
        data = video.read_bytes()
        offset += data.index(b"avc1", data.index(b"stsd")) - data.index(b"avc1")
    assert reason(patched(video, box, offset, layout, *values)) == word


def test_a_bomb_is_refused_before_it_is_decoded(video):
    assert reason(video, max_pixels=1000) == "too-many-pixels"


def test_without_a_key_frame(tmp_path):
    source = write_video(tmp_path / "whole.mkv", grey_ramp(20), fps=10, gop=100)
    path = tmp_path / "a.mkv"
    with av.open(str(source)) as whole, av.open(str(path), "w") as part:
        stream = part.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None and not packet.is_keyframe:
                packet.stream = stream
                part.mux(packet)
    assert reason(path) == "no-key-frame"


@pytest.mark.parametrize("suffix", ["mkv", "webm", "ts", "avi", "flv", "ogv", "wmv", "gif", "mp4"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_cut_short(tmp_path, suffix, share):
    source = DEMO / "10-meadow-again.mp4"
    small = ("-vf", "scale=80:48", "-t", "4", "-movflags", "+faststart")
    codec = {"webm": ("-c:v", "libvpx", "-cpu-used", "8"), "flv": ("-c:v", "libx264", "-bf", "0")}.get(
        suffix, ()
    )
    path = tmp_path / f"a.{suffix}"
    ffmpeg("-i", source, *small, *codec, "-an", path)
    look(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share) | 1])
    assert reason(path) in ("truncated", "undecodable")


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("noise", [0, 2])
def test_a_still_picture(tmp_path, codec, noise):
    rng = np.random.default_rng(0)
    picture = grey_ramp(1, size=(96, 128))[0].astype(int) + 40
    frames = [(picture + rng.integers(-noise, noise + 1, picture.shape)).astype(np.uint8) for _ in range(100)]
    path = write_video(tmp_path / "a.mkv", frames, fps=5, codec=codec, gop=40)
    assert reason(path) == "still"
    assert look(path, allow_still=True).facts.num_frames == 100


@pytest.mark.parametrize("gop", [40, 1000])
def test_slides_are_no_still_picture(tmp_path, gop):
    """The same title at the beginning, in the middle and at the end; one slide between them."""
    title = np.full((96, 128, 3), 230, np.uint8)
    slide = title.copy()
    slide[40:48, 30:60] = 40  # a line of text appears
    frames = [title] * 130 + [slide] * 5 + [title] * 265
    options = {"x264-params": "scenecut=0"}
    path = write_video(tmp_path / "a.mp4", frames, fps=5, gop=gop, options=options)
    assert not is_still(path, probe(path))


def test_hours_of_one_picture_in_few_frames(tmp_path):
    path = write_video(tmp_path / "a.mkv", [grey_ramp(1)[0]] * 5, times_ms=[h * 7_200_000 for h in range(5)])
    assert look(path, allow_still=True).facts.duration_s > 8 * 3600
    assert reason(path) == "still"


def test_a_single_frame(tmp_path):
    assert reason(write_video(tmp_path / "a.mp4", grey_ramp(1))) == "still"
    assert look(write_video(tmp_path / "b.mp4", grey_ramp(2, step=60))).facts.num_frames == 2


def test_what_is_put_behind_a_whole_file_does_not_matter(video):
    video.write_bytes(video.read_bytes() + np.random.default_rng(0).bytes(5000))
    assert look(video).facts.num_frames == 30


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv422p10le", "gray", "yuv420p"])
def test_any_layout_of_pixels(tmp_path, pix_fmt):
    path = tmp_path / "a.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=86x66:d=1", "-c:v", "libx264", "-pix_fmt", pix_fmt, path)
    assert look(path).why_normalise == ()


def test_sound_that_goes_on_is_no_missing_picture(tmp_path):
    path = tmp_path / "a.mkv"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=s=64x64:d=2", "-f", "lavfi", "-i", "sine=d=9", "-c:v", "libx264", path
    )
    assert look(path).facts.duration_s == pytest.approx(2.0)


def test_sound_with_a_cover_as_its_video(tmp_path):
    path = tmp_path / "a.mp4"
    cover = write_video(tmp_path / "cover.mp4", grey_ramp(1))
    ffmpeg("-f", "lavfi", "-i", "sine=d=5", "-i", cover, "-map", "0", "-map", "1", "-c:v", "copy", path)
    assert reason(path) == "audio-only"


@pytest.mark.parametrize("name", ["b.mkv", "b.mp4", "b.mov"])
def test_streams_of_other_kinds_do_not_disturb(tmp_path, video, name):
    (tmp_path / "a.srt").write_text("1\n00:00:00,500 --> 00:00:02,000\nhello\n")
    extra = {
        "b.mkv": ("-c:s", "srt", "-attach", tmp_path / "a.srt", "-metadata:s:t", "mimetype=text/plain"),
        "b.mp4": ("-c:s", "mov_text"),
        "b.mov": ("-c:s", "mov_text", "-timecode", "01:00:00:00"),
    }[name]
    ffmpeg("-i", video, "-i", tmp_path / "a.srt", "-c:v", "copy", *extra, tmp_path / name)
    found = look(tmp_path / name)
    assert (found.facts.num_frames, found.why_normalise) == (30, ())


def test_a_recording_without_index_and_length(tmp_path):
    """As a browser's recorder writes it: to a pipe, so that nothing can be filled in at the end."""
    path = tmp_path / "live.webm"
    with path.open("wb") as file:
        command = [ffmpeg_program(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=64x48:d=8", "-g", "20"]
        subprocess.run([*command, "-c:v", "libvpx", "-f", "webm", "-"], stdout=file, check=True, timeout=60)
    assert look(path).facts.duration_s == pytest.approx(8.0, abs=0.05)


LIMITS: dict[str, Callable[[], dict[str, float]]] = {
    "too-short": lambda: {"min_duration_s": 4.0},
    "too-long": lambda: {"max_duration_s": 2.0},
    "too-small": lambda: {"min_side": 50},
    "too-fast": lambda: {"max_fps": 5.0},
}


@pytest.mark.parametrize("word", LIMITS)
def test_limits(video, word):
    assert reason(video, **LIMITS[word]()) == word
