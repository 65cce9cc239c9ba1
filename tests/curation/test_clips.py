from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from longvila.config.footage import ClipConfig
from longvila.curation.clips import make_clips
from longvila.records import Clip, Shot
from tests.curation.pictures import shots_at

CONFIG = ClipConfig(target_s=8.0, min_s=1.0, max_s=16.0)
CONFIGS = [CONFIG, ClipConfig(), ClipConfig(target_s=2.0, min_s=2.0, max_s=2.0), ClipConfig(min_s=5.0)]
LENGTHS = st.lists(st.one_of(st.floats(0.05, 1.5), st.floats(0.05, 60.0)), min_size=1, max_size=30)


def spans(duration_s: float, cuts_s: list[float], config: ClipConfig = CONFIG) -> list[tuple[float, float]]:
    return [(clip.start_s, clip.stop_s) for clip in make_clips(shots_at("v", duration_s, cuts_s), config)]


def made(lengths: list[float], config: ClipConfig) -> tuple[list[Shot], list[Clip]]:
    edges = np.concatenate([[0.0], np.cumsum(lengths)]).tolist()
    shots = shots_at("v", edges[-1], edges[1:-1])
    return shots, make_clips(shots, config)


def test_every_shot_that_is_long_enough_is_a_clip_of_its_own():
    assert spans(20.0, [3.0, 6.0, 9.0, 15.0]) == [(0, 3), (3, 6), (6, 9), (9, 15), (15, 20)]


def test_a_long_shot_is_split_evenly():
    parts = np.array(spans(25.0, [1.5]))
    np.testing.assert_allclose(parts, [(0, 1.5), (1.5, 9.3333), (9.3333, 17.1667), (17.1667, 25)], atol=1e-3)
    assert spans(15.0, []) == [(0.0, 7.5), (7.5, 15.0)]
    assert spans(11.0, []) == [(0.0, 11.0)]


def test_a_tiny_shot_joins_its_shorter_neighbour():
    assert spans(10.4, [10.0]) == [(0.0, 10.4)]
    assert spans(10.4, [0.4]) == [(0.0, 10.4)]
    assert spans(10.0, [6.0, 6.5]) == [(0.0, 6.0), (6.0, 10.0)]
    assert spans(10.0, [3.0, 3.5]) == [(0.0, 3.5), (3.5, 10.0)]


def test_a_quick_montage_is_joined_up_to_the_target():
    cuts = [5.0 + 0.5 * i for i in range(21)]
    assert spans(20.0, cuts) == [(0.0, 5.0), (5.0, 13.0), (13.0, 15.0), (15.0, 20.0)]


def test_clips_name_their_shots():
    clips = make_clips(shots_at("v", 20.0, [3.0, 3.5]), CONFIG)
    assert [clip.shot_ids for clip in clips] == [("v-0", "v-1"), ("v-2",), ("v-2",)]
    assert [clip.index for clip in clips] == [0, 1, 2]


@settings(max_examples=60)
@given(lengths=LENGTHS, config=st.sampled_from(CONFIGS))
def test_clips_partition_the_time_line(lengths, config):
    shots, clips = made(lengths, config)
    assert clips[0].start_s == 0.0
    assert clips[-1].stop_s == shots[-1].stop_s
    assert all(first.stop_s == second.start_s for first, second in pairwise(clips))
    assert all(clip.start_s < clip.stop_s for clip in clips)
    assert len({clip.clip_id for clip in clips}) == len(clips)
    for clip in clips:
        inside = [shot.shot_id for shot in shots if shot.start_s < clip.stop_s and shot.stop_s > clip.start_s]
        assert list(clip.shot_ids) == inside


@settings(max_examples=60)
@given(lengths=LENGTHS, config=st.sampled_from(CONFIGS))
def test_a_clip_crosses_a_boundary_only_to_take_up_a_short_shot(lengths, config):
    """Of the shots in a clip at most one is long enough for a clip of its own, and lengths are kept."""
    shots, clips = made(lengths, config)
    long = {shot.shot_id for shot in shots if shot.stop_s - shot.start_s >= config.min_s}
    assert all(len(long & set(clip.shot_ids)) <= 1 for clip in clips)
    assert all(clip.stop_s - clip.start_s <= config.max_s + 1e-6 for clip in clips)
    if shots[-1].stop_s >= config.min_s and config.max_s >= 2 * config.min_s:
        assert all(clip.stop_s - clip.start_s >= config.min_s - 1e-6 for clip in clips)
