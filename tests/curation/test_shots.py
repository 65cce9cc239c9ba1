from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest

from longvila.config.footage import FramesConfig, ShotConfig
from longvila.curation.scan import scan_video
from longvila.curation.shot_detection.making import make_detector
from longvila.curation.shots import Cut, cut_times, make_shots
from longvila.media.probe import Probe
from tests.curation.pictures import grey, scene
from tests.media.making import write_video

FRAMES = FramesConfig(fps=1, size=16)


def cuts_of(pictures: list[np.ndarray], config: ShotConfig, *, fps: int = 24) -> list[Cut]:
    facts = made_up_facts(len(pictures), fps=fps)
    detector = make_detector(config, facts)
    for picture in pictures:
        detector.add(cv2.resize(picture, detector.picture_shape[::-1], interpolation=cv2.INTER_AREA))
    return cut_times(detector.boundaries(), facts.times_s)


def made_up_facts(num_frames: int, *, fps: int) -> Probe:
    return Probe(
        container="mp4", codec="h264", width=160, height=90, rotation=0, fps=fps, num_frames=num_frames,
        duration_s=num_frames / fps, start_s=0.0, has_audio=False, is_variable_rate=False, is_truncated=False,
        time_base=Fraction(1, fps), pts=np.arange(num_frames), keyframe_pts=np.array([0]),
        sizes=np.ones(num_frames, dtype=np.int64),
    )  # fmt: skip


def moving(seed: int, count: int) -> list[np.ndarray]:
    """A shot: a still scene with a block that moves."""
    pictures = []
    for i in range(count):
        picture = scene(seed).copy()
        picture[40:60, 4 * i % 140 : 4 * i % 140 + 15] = 200
        pictures.append(picture)
    return pictures


@pytest.mark.parametrize("config", [ShotConfig(), ShotConfig(detector="content", threshold=27.0)])
def test_known_cuts_are_found_exactly(config):
    lengths = [30, 20, 45, 16, 60]
    pictures = [p for seed, n in enumerate(lengths) for p in moving(seed, n)]
    cuts = cuts_of(pictures, config)
    expected = np.cumsum(lengths)[:-1] / 24
    np.testing.assert_allclose([cut.time_s for cut in cuts], expected, atol=1e-9)
    assert {cut.transition for cut in cuts} == {"cut"}
    assert all(cut.score > 0.05 for cut in cuts)


def test_motion_and_light_are_no_cuts():
    pan = [np.roll(scene(1), 3 * i, axis=1) for i in range(60)]
    brighter = [(scene(2) * (0.5 + i / 120)).astype(np.uint8) for i in range(60)]
    assert cuts_of(pan, ShotConfig()) == []
    assert cuts_of(brighter, ShotConfig()) == []


def test_short_shots_are_not_made():
    pictures = [p for seed, n in enumerate([30, 5, 30]) for p in moving(seed, n)]
    cuts = cuts_of(pictures, ShotConfig())
    assert [len(make_shots("v", 65 / 24, cuts, ShotConfig(min_shot_s=s))) for s in (0.6, 0.1)] == [2, 3]


def test_a_fade_through_black_is_one_boundary_in_its_middle():
    down = [(scene(1) * (1 - i / 20)).astype(np.uint8) for i in range(20)]
    up = [(scene(2) * (i / 20)).astype(np.uint8) for i in range(1, 21)]
    pictures = [scene(1)] * 30 + down + [grey(0.0)] * 12 + up + [scene(2)] * 30
    cuts = cuts_of(pictures, ShotConfig())
    assert [cut.transition for cut in cuts] == ["fade"]
    assert 50 / 24 <= cuts[0].time_s <= 62 / 24


def test_black_at_the_beginning_and_the_end_is_no_cut():
    up = [(scene(2) * (i / 20)).astype(np.uint8) for i in range(20)]
    assert cuts_of([grey(0.0)] * 12 + up + [scene(2)] * 30 + up[::-1] + [grey(0.0)] * 12, ShotConfig()) == []


def test_shots_partition_the_time_line():
    cuts = [Cut(0.2, "cut", 0.1), Cut(3.0, "fade", 0.2), Cut(7.0, "cut", 0.3), Cut(9.8, "cut", 0.1)]
    shots = make_shots("v", 10.0, cuts, ShotConfig(min_shot_s=0.6))
    assert [(shot.start_s, shot.stop_s) for shot in shots] == [(0.0, 3.0), (3.0, 7.0), (7.0, 10.0)]
    assert [shot.transition for shot in shots] == ["start", "fade", "cut"]
    assert [shot.index for shot in shots] == [0, 1, 2]
    assert len({shot.shot_id for shot in shots}) == 3
    assert [(s.start_s, s.stop_s) for s in make_shots("v", 1.0, [], ShotConfig())] == [(0.0, 1.0)]


def test_cuts_of_a_file_with_a_variable_rate(tmp_path):
    """The cut is where the clock says, not where a mean frame rate would put it."""
    pictures = moving(1, 30) + moving(2, 30)
    times_ms = [100 * i for i in range(30)] + [3000 + 40 * i for i in range(30)]
    path = write_video(tmp_path / "v.mkv", pictures, fps=25, times_ms=times_ms, gop=12)
    found = scan_video(path, shots=ShotConfig(), frames=FRAMES)
    assert [cut.time_s for cut in found.cuts] == pytest.approx([3.0], abs=0.002)
