from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from longvila.config.footage import ShotConfig
from longvila.curation.shot_detection.pictures import small_picture
from longvila.media.decode import decode_all, to_picture
from longvila.media.probe import probe
from tests.curation.pictures import scene
from tests.media.making import write_video


def test_a_threshold_belongs_to_a_detector():
    assert ShotConfig().detector == "cascade"
    assert ShotConfig(detector="adaptive", threshold=3.0).threshold == 3.0
    with pytest.raises(ValidationError, match="detector=cascade has no threshold, but threshold=3 is set"):
        ShotConfig(threshold=3.0)
    with pytest.raises(ValidationError, match="threshold=27 is not below 1, as detector=transnetv2 needs"):
        ShotConfig(detector="transnetv2", threshold=27.0)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray"])
@pytest.mark.parametrize("size", [(270, 480), (54, 96), (24, 32)])
def test_small_pictures_are_what_ffmpeg_makes(tmp_path, pixels, size):
    """Any layout of pixels, larger and smaller than the small picture; plain blocks, as few are sampled."""
    picture = scene(3, size=size, blocks=3)
    path = write_video(tmp_path / "v.mkv", [picture] * 2, options={"crf": "1"})
    facts = probe(path)
    _, frame = next(iter(decode_all(path, facts)))
    frame = frame.reformat(format=pixels)
    for rotation in (0, 90):
        shape = (27, 48) if rotation == 0 else (48, 27)
        ours = small_picture(frame, rotation, shape).astype(int)
        expected = to_picture(frame, rotation, shape).astype(int)
        assert ours.shape == (*shape, 3)
        assert np.median(np.abs(ours - expected)) <= 3
        assert np.abs(ours - expected).mean() < 6
