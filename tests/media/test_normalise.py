"""Encoded anew, a video shows the same pictures at the same times, upright, and can be sought."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from longvila.errors import ItemError
from longvila.media.decode import decode_frames
from longvila.media.normalise import (
    Encoding,
    check_same_length,
    constant_rate,
    normalise,
    reasons_to_normalise,
)
from longvila.media.probe import Probe, probe
from longvila.media.verify import check_decodes
from tests.media.making import ffmpeg, grey_ramp, number_of, write_video
from tests.media.test_opening import NAMES

ENCODING = Encoding(
    max_fps=60.0,
    crf=12,
    preset="ultrafast",
    key_frame_every_s=1.0,
    threads=1,
    timeout_s=60.0,
    max_pixels=10**7,
)
VARIABLE_MS = [0, 40, 80, 400, 440, 900, 940, 980, 1500, 1533, 1600, 1640, 1700, 2200]


def encode(path: Path, **changes: object) -> tuple[Probe, Probe, Path]:
    before, out = probe(path), path.with_name("encoded.mp4")
    normalise(path, out, before, Encoding(**{**vars(ENCODING), **changes}))
    after = probe(out)
    check_same_length(before, after, name="a")
    check_decodes(out, after)
    assert reasons_to_normalise(after) == ()
    assert (after.codec, after.container.split(",")[1], after.start_s) == ("h264", "mp4", 0.0)
    return before, after, out


def assert_same_times(path: Path, before: Probe, out: Path, after: Probe, *, step: int) -> None:
    """At every time the picture is one that the original showed at most half a frame before or after."""
    half_s = 0.5 / after.fps + 1e-3
    times_s = np.arange(0, min(before.duration_s, after.duration_s) - 1e-3, 0.007)

    def numbers(file: Path, facts: Probe, at_s: np.ndarray) -> np.ndarray:
        frames = decode_frames(file, np.clip(at_s, 0, facts.duration_s - 1e-4), facts=facts)
        return np.array([number_of(frame, step=step) for frame in frames])

    shown = numbers(out, after, times_s)
    assert (numbers(path, before, times_s - half_s) <= shown).all()
    assert (shown <= numbers(path, before, times_s + half_s)).all()


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_variable_rate(tmp_path, suffix):
    path = write_video(
        tmp_path / f"a.{suffix}", grey_ramp(14, step=16), fps=25, times_ms=VARIABLE_MS, options={"bf": "2"}
    )
    before, after, out = encode(path)
    assert reasons_to_normalise(before) == ("a variable frame rate",)
    assert not after.is_variable_rate
    assert_same_times(path, before, out, after, step=16)


def test_a_last_picture_that_stays_long(tmp_path):
    times_ms = [0, 700, 1400, 1440, 2140, 2840]  # Matroska does not say how long the last one is shown
    path = write_video(tmp_path / "a.mkv", grey_ramp(6, step=40), fps=25, times_ms=times_ms)
    before, after, out = encode(path)
    assert after.duration_s == pytest.approx(before.duration_s, abs=0.021)
    assert_same_times(path, before, out, after, step=40)


def test_mpeg2(tmp_path):
    path = write_video(tmp_path / "a.mpg", grey_ramp(38), fps=25, codec="mpeg2video", options={"bf": "2"})
    before, after, out = encode(path)
    assert reasons_to_normalise(before) == ("the codec mpeg2video", "the container mpeg")
    assert (after.num_frames, after.fps) == (38, pytest.approx(25.0))
    assert [number_of(frame) for frame in decode_frames(out, after.times_s)] == list(range(38))


@pytest.mark.parametrize(("degrees", "mirror"), [(90, ()), (180, ()), (270, ()), (0, ("-display_hflip",))])
def test_a_turned_picture(tmp_path, degrees, mirror):
    plain, path = write_video(tmp_path / "plain.mp4", grey_ramp(8)), tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", str(-degrees), *mirror, "-i", plain, "-c", "copy", path)
    before, after, out = encode(path)
    assert reasons_to_normalise(before) == ("a turned picture",)
    (upright,) = decode_frames(plain, [0.3])
    wanted = upright[:, ::-1] if mirror else np.rot90(upright, -degrees // 90)
    (found,) = decode_frames(out, [0.3])
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).mean() < 3
    assert (after.rotation, after.is_mirrored) == (0, False)


def test_pixels_that_are_not_square(tmp_path):
    path = tmp_path / "wide.mp4"
    ffmpeg("-i", write_video(tmp_path / "a.mp4", grey_ramp(5)), "-vf", "setsar=16/11", path)
    before, after, _ = encode(path)
    assert (before.width, before.height, before.pixel_aspect) == (93, 48, Fraction(16, 11))
    assert (after.width, after.height, after.pixel_aspect) == (94, 48, 1) or after.width == 92
    assert decode_frames(path, [0.1], facts=before).shape == (1, 48, 93, 3)


def test_interlaced_pictures(tmp_path):
    path = tmp_path / "a.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=s=128x96:r=50:d=1", "-vf", "interlace", "-c:v", "libx264",
        "-flags", "+ilme+ildct", path,
    )  # fmt: skip
    before, after, _ = encode(path)
    assert reasons_to_normalise(before) == ("interlaced pictures",)
    assert not after.is_interlaced


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_becomes_ordinary_brightness(tmp_path, transfer):
    path = tmp_path / "hdr.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", "color=gray:s=64x64:d=0.5,format=yuv420p10le", "-vf",
        f"setparams=color_trc={transfer}:color_primaries=bt2020:colorspace=bt2020nc", "-c:v", "libx265",
        "-x265-params", "log-level=error", path,
    )  # fmt: skip
    before, after, out = encode(path)
    assert reasons_to_normalise(before) == ("brightness coded for HDR",)
    assert not after.is_hdr
    assert decode_frames(out, [0.1]).mean() > 60


def test_the_sound_stays_with_the_picture(tmp_path):
    video = write_video(tmp_path / "a.mpg", grey_ramp(20), fps=25, codec="mpeg2video")
    path = tmp_path / "late.ts"  # the picture begins 0.6 s after the sound
    ffmpeg("-itsoffset", "0.6", "-i", video, "-f", "lavfi", "-i", "sine=d=3", "-c:v", "copy", path)
    before, after, _ = encode(path)
    assert before.sound_delay_s == pytest.approx(-0.6, abs=0.1)
    assert after.has_audio
    assert after.sound_delay_s == pytest.approx(0.0, abs=0.05)
    assert after.duration_s == pytest.approx(0.8, abs=0.02)


def test_sound_that_cannot_be_decoded_is_left_out(tmp_path):
    path = tmp_path / "a.mkv"
    video = write_video(tmp_path / "v.mkv", grey_ramp(30), fps=25, codec="mpeg2video")
    ffmpeg("-i", video, "-f", "lavfi", "-i", "sine=d=1.2", "-c:v", "copy", "-c:a", "aac", path)
    data, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(audio=0) if p.size]
    for at, size in packets[5:]:
        data[at + 8 : at + size] = rng.bytes(size - 8)
    path.write_bytes(data)
    _, after, _ = encode(path)
    assert (after.num_frames, after.has_audio) == (30, False)


def test_twice_gives_the_same_bytes(tmp_path):
    path = write_video(tmp_path / "a.avi", grey_ramp(30), fps=10, codec="mpeg4")
    digests = []
    for _ in range(2):
        _, _, out = encode(path)
        digests.append(hashlib.sha256(out.read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_key_frames_come_often(tmp_path):
    path = write_video(
        tmp_path / "a.mp4", [grey_ramp(2)[0]] * 700, fps=25, gop=9999, options={"x264-params": "scenecut=0"}
    )
    before, after, _ = encode(path)
    assert reasons_to_normalise(before) == ("700 frames without a key frame",)
    assert after.longest_group <= 25


@pytest.mark.parametrize("name", NAMES)
def test_any_name(tmp_path, monkeypatch, name):
    write_video(tmp_path / "plain.mkv", grey_ramp(3), codec="ffv1").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    normalise(Path(name), Path("out-" + name), probe(Path(name)), ENCODING)
    assert probe(Path("out-" + name)).num_frames == 3


def test_damage_on_the_way_leaves_nothing(tmp_path):
    path = write_video(tmp_path / "a.mkv", grey_ramp(38), fps=25, codec="mpeg2video")
    facts, data = probe(path), bytearray(path.read_bytes())
    at = len(data) * 3 // 10
    data[at : at + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(data)
    with pytest.raises(ItemError) as caught:
        normalise(path, tmp_path / "out.mp4", facts, ENCODING, name="film 1")
    assert caught.value.reason == "undecodable"
    assert "film 1" in caught.value.detail
    assert [file.name for file in tmp_path.iterdir()] == ["a.mkv"]


def test_ffmpeg_is_not_waited_for_longer_than_allowed(tmp_path):
    path = write_video(tmp_path / "a.avi", grey_ramp(20), codec="mpeg4")
    with pytest.raises(ItemError) as caught:
        normalise(path, tmp_path / "out.mp4", probe(path), Encoding(**{**vars(ENCODING), "timeout_s": 0.001}))
    assert caught.value.reason == "too-slow-to-encode"
    assert [file.name for file in tmp_path.iterdir()] == ["a.avi"]


def test_a_shorter_encoding_is_told(tmp_path):
    long = probe(write_video(tmp_path / "a.mp4", grey_ramp(30)))
    short = probe(write_video(tmp_path / "b.mp4", grey_ramp(20)))
    with pytest.raises(ItemError, match=r"of 3\.00 s only 2\.00 s"):
        check_same_length(long, short, name="a")


@pytest.mark.parametrize(
    ("times_s", "rate"),
    [
        (np.arange(100) * 1001 / 30000, Fraction(30000, 1001)),
        (np.round(np.arange(100) / 24, 3), 24),
        (np.arange(100) / 23.5, Fraction(47, 2)),
        (np.delete(np.arange(100), [7, 30, 31, 60]) / 25, 25),
        (np.array([0, 5, 11, 30]), 1),
        (np.concatenate([np.arange(50) / 24, 3 + np.arange(50) / 60]), Fraction(60000, 1001)),
        (np.arange(100) / 240, 60),
        (np.array([0.0]), 25),
    ],
)
def test_the_rate_that_is_chosen(times_s, rate):
    assert constant_rate(np.asarray(times_s, dtype=float), 0.04, max_fps=60.0) == rate
