"""Frames of real videos in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longvila.curation.composing.frame_bank import decode_bank, join_videos
from longvila.errors import InputError
from longvila.media.decode import decode_frames

VIDEOS = Path(__file__).parents[3] / "datasets" / "demo" / "videos"


def test_decodes_real_videos_one_after_another() -> None:
    paths = [("apple", VIDEOS / "02-apple.mp4"), ("workshop", VIDEOS / "05-workshop.mp4")]
    bank = decode_bank(paths, fps=0.5, size=32)
    assert bank.size == 32
    first = bank.video_ids.index("workshop")
    assert set(bank.video_ids[:first]) == {"apple"}
    assert set(bank.video_ids[first:]) == {"workshop"}
    assert bank.times_s[first] == 0.0
    assert np.all(np.diff(bank.times_s[:first]) == 2.0)
    again = decode_frames(VIDEOS / "05-workshop.mp4", [bank.times_s[first + 3]], size=32)[0]
    assert np.array_equal(bank.frames_NHW3[first + 3], again)


def test_a_run_goes_on_from_the_start_after_the_end() -> None:
    frames = np.zeros((5, 16, 16, 3), dtype=np.uint8)
    bank = join_videos([("a", frames, np.arange(5.0))])
    assert bank.run(3, 4).tolist() == [3, 4, 0, 1]
    assert bank.run(1, 3, stride=2).tolist() == [1, 3, 0]


def test_no_video_is_an_error_that_says_how_to_mend_it() -> None:
    with pytest.raises(InputError, match="Add a source of this split"):
        join_videos([])
