from __future__ import annotations

from pathlib import Path

import pytest

from longvila.config.sourcing import ValidateConfig
from longvila.curation.fetching.fetch import FetchedVideo
from longvila.curation.validate import validate
from longvila.errors import ItemError
from tests.media.making import DEMO, grey_ramp, write_video

FETCHED = FetchedVideo(
    source_id="a", key="videos/ab/ab.mp4", url="u", sha256="ab" * 32, size_bytes=1, split="heldout", title="T"
)


def reason(path: Path, **config: float) -> str:
    with pytest.raises(ItemError) as caught:
        validate(FETCHED, path, ValidateConfig.model_validate(config))
    return caught.value.reason


def test_a_good_video():
    video = validate(FETCHED, DEMO / "10-meadow-again.mp4", ValidateConfig())
    assert (video.video_id, video.source_id, video.split, video.title) == ("ab" * 8, "a", "heldout", "T")
    assert (video.width, video.height, video.codec, video.num_frames) == (426, 240, "h264", 800)
    assert video.duration_s == pytest.approx(40.0)


def test_truncated():
    assert reason(DEMO / "11-cut-short.mp4") == "truncated"


def test_limits(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_ramp(30), fps=10)
    assert reason(path, min_duration_s=4.0) == "too-short"
    assert reason(path, max_duration_s=2.0) == "too-long"
    assert reason(path, min_side=50) == "too-small"
    assert validate(FETCHED, path, ValidateConfig(min_side=48)).duration_s == pytest.approx(3.0)


def test_damaged_at_the_end(tmp_path):
    whole = (DEMO / "10-meadow-again.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[:-30_000] + bytes(30_000))
    assert reason(tmp_path / "a.mp4") == "damaged"
