"""Time lines as containers really have them."""

from __future__ import annotations

from itertools import pairwise

import av
import numpy as np
import pytest

from longvila.errors import ItemError
from longvila.media.decode import decode_frames
from longvila.media.probe import probe
from tests.media.making import DEMO, ffmpeg, grey_ramp, number_of, write_video


def numbers(path, times_s):
    return [number_of(frame) for frame in decode_frames(path, times_s)]


def test_a_clock_that_wraps_on_the_way(tmp_path):
    write_video(tmp_path / "a.mp4", grey_ramp(38), fps=10)
    # The 33 bits of a transport stream's clock end at 95443.7 s.
    ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", "-output_ts_offset", "95441", tmp_path / "wrap.ts")
    facts = probe(tmp_path / "wrap.ts")
    np.testing.assert_allclose(facts.times_s, np.arange(38) / 10, atol=1e-4)
    assert facts.is_exact
    assert numbers(tmp_path / "wrap.ts", [0.0, 1.2, 3.7]) == [0, 12, 37]


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path):
    write_video(tmp_path / "a.mp4", grey_ramp(38), fps=10, gop=38)
    ffmpeg("-ss", "1.3", "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "trimmed.mov")
    facts = probe(tmp_path / "trimmed.mov")
    assert facts.num_frames == 25
    assert facts.duration_s == pytest.approx(2.5)
    assert numbers(tmp_path / "trimmed.mov", [0.0, 2.4]) == [13, 37]


def test_a_picture_that_begins_after_the_sound(tmp_path):
    write_video(tmp_path / "a.mp4", grey_ramp(20), fps=10)
    ffmpeg(
        "-itsoffset", "1.5", "-i", tmp_path / "a.mp4", "-f", "lavfi", "-i", "sine=d=4",
        "-c:v", "copy", "-c:a", "aac", tmp_path / "late.mp4",
    )  # fmt: skip
    facts = probe(tmp_path / "late.mp4")
    assert facts.duration_s == pytest.approx(2.0)
    assert facts.start_s == pytest.approx(1.5)
    assert facts.sound_delay_s == pytest.approx(-1.5, abs=0.05)
    assert numbers(tmp_path / "late.mp4", [0.0, 1.9]) == [0, 19]


def test_raw_streams_have_guessed_times(tmp_path):
    write_video(tmp_path / "a.mp4", grey_ramp(30), fps=25)
    ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "raw.h264")
    facts = probe(tmp_path / "raw.h264")
    assert (facts.num_frames, facts.is_exact) == (30, False)
    assert facts.duration_s == pytest.approx(1.2)


def test_recordings_joined_without_care_are_not_exact(tmp_path):
    path = write_video(tmp_path / "a.ts", grey_ramp(25), fps=25, codec="mpeg2video")
    path.write_bytes(path.read_bytes() * 2)
    assert not probe(path).is_exact


def test_a_stream_cut_out_of_a_broadcast_begins_at_its_first_key_frame(tmp_path):
    path = write_video(tmp_path / "a.ts", grey_ramp(40), fps=25, codec="mpeg2video", gop=12)
    data = path.read_bytes()
    path.write_bytes(data[188 * (len(data) // 188 // 5) :])
    facts = probe(path)
    assert not facts.starts_clean
    assert 20 < facts.num_frames < 39


@pytest.mark.parametrize("suffix", ["mkv", "ts", "flv", "mp4"])
def test_a_hole_is_found_wherever_it_is(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    ffmpeg("-i", DEMO / "10-meadow-again.mp4", "-t", "12", "-c", "copy", path)
    assert probe(path).damage_s is None
    assert not probe(path).is_truncated
    data = path.read_bytes()
    at = len(data) * 3 // 5
    path.write_bytes(data[:at] + bytes(40_000) + data[at + 40_000 :])
    facts = probe(path)
    # What lies behind the hole of a Matroska file may not be found again.
    assert facts.damage_s is not None or facts.is_truncated


def test_transparency_between_the_packets_is_no_hole(tmp_path):
    noise = "testsrc2=s=160x120:r=10:d=1,format=yuva420p,geq=lum='lum(X,Y)':a='random(1)*255'"
    ffmpeg(
        "-f", "lavfi", "-i", noise, "-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", "9M",
        "-pix_fmt", "yuva420p", tmp_path / "a.webm",
    )  # fmt: skip
    with av.open(str(tmp_path / "a.webm")) as container:
        ends = [(p.pos, p.pos + p.size) for p in container.demux() if p.size]
    assert max(start - stop for (_, stop), (start, _) in pairwise(ends)) > 4096
    assert probe(tmp_path / "a.webm").damage_s is None


def test_drm_is_told(tmp_path):
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=s=64x64:d=1", "-c:v", "libx264", "-encryption_scheme", "cenc-aes-ctr",
        "-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb",
        "-encryption_kid", "a7e61c373e219033c21091fa607bf3b8", tmp_path / "a.mp4",
    )  # fmt: skip
    with pytest.raises(ItemError, match="encrypted"):
        probe(tmp_path / "a.mp4")
