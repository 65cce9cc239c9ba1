from __future__ import annotations

import pytest

from longvila.errors import InputError, ItemError
from longvila.media.cutting import cut
from longvila.media.decode import iterate_frames
from longvila.media.ffmpeg import transcode
from longvila.media.probe import probe
from tests.media.making import DEMO, grey_ramp, number_of, write_video


def test_a_cut_is_exact_to_the_frame(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_ramp(40), fps=10)
    cut(path, tmp_path / "part.mp4", start_s=1.1, stop_s=2.5)
    assert [number_of(frame) for _, frame in iterate_frames(tmp_path / "part.mp4")] == list(range(11, 25))


def test_transcoding_changes_size_and_rate(tmp_path):
    out = tmp_path / "deep" / "small.mp4"
    transcode(DEMO / "05-workshop.mp4", out, height=120, fps=8, audio=False, duration_s=3.0)
    facts = probe(out)
    assert (facts.height, facts.width, facts.has_audio) == (120, 214, False)
    assert facts.fps == pytest.approx(8.0, rel=0.01)
    assert [path.name for path in out.parent.iterdir()] == ["small.mp4"]


def test_what_ffmpeg_cannot_read_leaves_nothing_behind(tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    with pytest.raises(ItemError, match="ffmpeg says"):
        transcode(tmp_path / "bad.mp4", tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"]


def test_wrong_use(tmp_path):
    with pytest.raises(InputError, match="no video file"):
        transcode(tmp_path / "none.mp4", tmp_path / "out.mp4")
    with pytest.raises(InputError, match="is empty"):
        cut(DEMO / "05-workshop.mp4", tmp_path / "out.mp4", start_s=2.0, stop_s=2.0)
