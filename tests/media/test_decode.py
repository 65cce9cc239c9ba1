from __future__ import annotations

import numpy as np
import pytest

from longvila.errors import InputError, ItemError
from longvila.media.decode import decode_frames, iterate_frames, sample_times
from longvila.media.probe import probe
from tests.media.making import DEMO, ffmpeg, grey_ramp, number_of, write_video

CONTAINERS = [("a.mp4", "libx264"), ("a.mpg", "mpeg2video"), ("a.ts", "mpeg2video"), ("a.avi", "mpeg4")]


def numbers(frames: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in frames]


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_the_frame_at_a_time_is_the_last_one_not_after_it(tmp_path, name, codec):
    path = write_video(tmp_path / name, grey_ramp(38), fps=25, codec=codec)
    times_s = probe(path).times_s
    asked = [times_s[20], times_s[3] + 0.039, times_s[37], times_s[0], times_s[21] + 0.001, times_s[20]]
    frames = decode_frames(path, asked)
    assert frames.shape == (6, 48, 64, 3)
    assert numbers(frames) == [20, 3, 37, 0, 21, 20]


def test_variable_rate_goes_by_time(tmp_path):
    times_ms = [0, 40, 80, 400, 440, 900, 940]
    path = write_video(tmp_path / "v.mkv", grey_ramp(7, step=20), fps=25, times_ms=times_ms)
    frames = decode_frames(path, [0.39, 0.4, 0.89, 0.1, 0.95])
    assert [number_of(frame, step=20) for frame in frames] == [2, 3, 4, 2, 6]


def test_open_groups_of_pictures_with_reordering(tmp_path):
    options = {"bf": "3", "x264-params": "open-gop=1:scenecut=0"}
    path = write_video(tmp_path / "o.mp4", grey_ramp(38), fps=25, gop=6, options=options)
    everything = probe(path).times_s
    assert numbers(decode_frames(path, everything)) == list(range(38))
    for i in range(38):
        assert numbers(decode_frames(path, [everything[i]])) == [i]


def test_seeking_and_one_pass_give_the_same_pictures():
    path = DEMO / "10-meadow-again.mp4"
    facts = probe(path)
    passed = list(iterate_frames(path, fps=0.7, size=40, facts=facts))
    times_s = sample_times(facts.duration_s, 0.7)
    np.testing.assert_allclose([time for time, _ in passed], times_s)
    np.testing.assert_array_equal(
        np.stack([frame for _, frame in passed]), decode_frames(path, times_s, size=40)
    )


def test_a_pass_gives_every_frame(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_ramp(30), fps=10)
    passed = list(iterate_frames(path))
    assert numbers(np.stack([frame for _, frame in passed])) == list(range(30))
    np.testing.assert_allclose([time for time, _ in passed], np.arange(30) / 10, atol=1e-6)


def test_more_frames_per_second_than_there_are_repeats_them(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_ramp(3), fps=10)
    passed = [number_of(frame) for _, frame in iterate_frames(path, fps=20)]
    assert passed == [0, 0, 1, 1, 2, 2]


def test_size_is_height_and_width(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_ramp(3))
    assert decode_frames(path, [0.0], size=(20, 30)).shape == (1, 20, 30, 3)
    assert decode_frames(path, [0.0], size=16).shape == (1, 16, 16, 3)
    assert decode_frames(path, [], size=16).shape == (0, 16, 16, 3)


@pytest.mark.parametrize(
    ("degrees", "corner"), [(90, "top right"), (180, "bottom right"), (270, "bottom left")]
)
def test_rotated_pictures_stand_upright(tmp_path, degrees, corner):
    plain = write_video(tmp_path / "plain.mp4", grey_ramp(2))  # white in the top left corner
    ffmpeg("-display_rotation", str(-degrees), "-i", plain, "-c", "copy", tmp_path / "turned.mp4")
    frame = decode_frames(tmp_path / "turned.mp4", [0.0])[0]
    height, width = frame.shape[:2]
    assert (height, width) == ((48, 64) if degrees == 180 else (64, 48))
    places = {"top": 4, "bottom": height - 5, "left": 4, "right": width - 5}
    row, column = (places[word] for word in corner.split())
    assert frame[row, column].mean() > 200
    assert frame[height - 1 - row, width - 1 - column].mean() < 60


def test_a_time_outside_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_ramp(3), fps=10)
    with pytest.raises(InputError, match="outside the video"):
        decode_frames(path, [0.3])


def test_what_is_cut_off_is_told(tmp_path):
    """A file that lost its end after it was probed."""
    path = DEMO / "10-meadow-again.mp4"
    facts = probe(path)
    part = tmp_path / "part.mp4"
    part.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(ItemError) as caught:
        list(iterate_frames(part, size=16, facts=facts))
    assert caught.value.reason == "truncated"
    with pytest.raises(ItemError) as caught:
        decode_frames(part, [39.0], size=16, facts=facts)
    assert caught.value.reason == "truncated"


def test_sample_times():
    np.testing.assert_allclose(sample_times(2.0, 2.0), [0, 0.5, 1.0, 1.5])
    np.testing.assert_allclose(sample_times(2.1, 2.0), [0, 0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(sample_times(0.1, 2.0), [0])
