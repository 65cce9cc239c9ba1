from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longvila.errors import InputError, ItemError
from longvila.media.probe import probe
from tests.media.making import DEMO, ffmpeg, grey_ramp, write_video


def reason(path: Path) -> str:
    with pytest.raises(ItemError) as caught:
        probe(path)
    assert path.name in caught.value.detail
    return caught.value.reason


def test_real_video():
    facts = probe(DEMO / "05-workshop.mp4")
    assert (facts.codec, facts.width, facts.height, facts.rotation) == ("h264", 640, 360, 0)
    assert facts.num_frames == 6833 - 5809
    assert facts.fps == pytest.approx(24.0)
    assert facts.duration_s == pytest.approx(1024 / 24)
    assert facts.has_audio
    assert not facts.is_variable_rate
    assert not facts.is_truncated
    assert len(facts.keyframe_pts) > 10


def test_every_frame_has_a_time_and_is_found_by_it(tmp_path):
    facts = probe(write_video(tmp_path / "a.mp4", grey_ramp(12), fps=10))
    np.testing.assert_allclose(facts.times_s, np.arange(12) / 10, atol=1e-6)
    np.testing.assert_array_equal(facts.frames_at(np.array([0.0, 0.0999, 0.1, 0.55, 1.19])), [0, 0, 1, 5, 11])
    assert facts.duration_s == pytest.approx(1.2)
    with pytest.raises(InputError, match="outside the video"):
        facts.frames_at(np.array([1.2]))
    with pytest.raises(InputError, match=r"lasts \[0, 1.200\)"):
        facts.frames_at(np.array([-0.1]))


def test_variable_rate_is_told_from_constant(tmp_path):
    times_ms = [0, 40, 80, 400, 440, 900]
    facts = probe(write_video(tmp_path / "v.mkv", grey_ramp(6), fps=25, times_ms=times_ms))
    assert facts.is_variable_rate
    np.testing.assert_allclose(facts.times_s, np.array(times_ms) / 1000, atol=1e-3)
    # Matroska rounds 1/24 s to 41 or 42 ms: still a constant rate.
    ffmpeg("-i", DEMO / "10-meadow-again.mp4", "-t", "2", "-c", "copy", tmp_path / "c.mkv")
    assert not probe(tmp_path / "c.mkv").is_variable_rate


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_in_the_size(tmp_path, degrees):
    plain = write_video(tmp_path / "plain.mp4", grey_ramp(4))
    turned = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", str(-degrees), "-i", plain, "-c", "copy", turned)
    facts = probe(turned)
    assert facts.rotation == degrees
    assert (facts.width, facts.height) == ((64, 48) if degrees == 180 else (48, 64))


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mpg", "mpeg2video"), ("a.ts", "mpeg2video"), ("a.avi", "mpeg4")]
)
def test_other_codecs_and_containers(tmp_path, name, codec):
    facts = probe(write_video(tmp_path / name, grey_ramp(25), fps=25, codec=codec))
    assert facts.codec == codec
    assert facts.num_frames == 25
    assert facts.duration_s == pytest.approx(1.0, abs=0.05)


def test_a_wrong_extension_does_not_matter(tmp_path):
    write_video(tmp_path / "a.mp4", grey_ramp(4)).rename(tmp_path / "a.mkv")
    assert probe(tmp_path / "a.mkv").num_frames == 4


def test_missing_file_and_folder_are_the_users_mistake(tmp_path):
    with pytest.raises(InputError, match="no video file"):
        probe(tmp_path / "nothing.mp4")
    with pytest.raises(InputError, match="no video file"):
        probe(tmp_path)


def test_empty_file(tmp_path):
    (tmp_path / "a.mp4").touch()
    assert reason(tmp_path / "a.mp4") == "empty"


def test_text_and_noise_are_no_video(tmp_path):
    (tmp_path / "a.mp4").write_text("this is not a video\n" * 100)
    assert reason(tmp_path / "a.mp4") == "not-a-video"
    (tmp_path / "b.mp4").write_bytes(np.random.default_rng(0).bytes(4096))
    assert reason(tmp_path / "b.mp4") == "not-a-video"


def test_a_picture_is_no_video(tmp_path):
    Image.fromarray(grey_ramp(1)[0]).save(tmp_path / "a.png")
    assert reason(tmp_path / "a.png") == "not-a-video"


def test_sound_alone(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "a.m4a")
    assert reason(tmp_path / "a.m4a") == "audio-only"


def test_sound_with_a_cover_picture_is_sound_alone(tmp_path):
    Image.fromarray(grey_ramp(1)[0]).save(tmp_path / "cover.png")
    ffmpeg(
        "-f", "lavfi", "-i", "sine=duration=1", "-i", tmp_path / "cover.png", "-map", "0", "-map", "1",
        "-c:v", "copy", "-disposition:v", "attached_pic", tmp_path / "a.mp3",
    )  # fmt: skip
    assert reason(tmp_path / "a.mp3") == "audio-only"


def test_cut_off_before_the_index(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", grey_ramp(30))  # its index is at the end
    (tmp_path / "part.mp4").write_bytes(whole.read_bytes()[:-400])
    assert reason(tmp_path / "part.mp4") == "truncated"


def test_cut_off_after_the_index():
    facts = probe(DEMO / "11-cut-short.mp4")
    assert facts.is_truncated
    assert facts.duration_s < 12


def test_no_frame_at_all(tmp_path):
    whole = (DEMO / "10-meadow-again.mp4").read_bytes()
    (tmp_path / "head.mp4").write_bytes(whole[: whole.index(b"mdat") + 8])
    assert reason(tmp_path / "head.mp4") == "no-frames"
