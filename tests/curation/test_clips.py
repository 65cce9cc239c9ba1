from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from longvila.config.footage import ClipConfig
from longvila.curation.clips import make_clips
from tests.curation.pictures import shots_at

CONFIG = ClipConfig(target_s=8.0, min_s=1.0, max_s=16.0)


def spans(duration_s: float, cuts_s: list[float], config: ClipConfig = CONFIG) -> list[tuple[float, float]]:
    return [(clip.start_s, clip.stop_s) for clip in make_clips(shots_at("v", duration_s, cuts_s), config)]


def test_short_shots_join_up_to_the_target():
    assert spans(20.0, [3.0, 6.0, 9.0, 15.0]) == [(0.0, 6.0), (6.0, 9.0), (9.0, 15.0), (15.0, 20.0)]


def test_a_long_shot_is_split_evenly():
    parts = np.array(spans(25.0, [1.5]))
    np.testing.assert_allclose(parts, [(0, 1.5), (1.5, 9.3333), (9.3333, 17.1667), (17.1667, 25)], atol=1e-3)
    assert spans(15.0, []) == [(0.0, 15.0)]


def test_a_tiny_shot_joins_its_neighbour_whatever_the_target():
    assert spans(10.4, [10.0]) == [(0.0, 10.4)]
    assert spans(10.4, [0.4]) == [(0.0, 10.4)]


def test_clips_name_their_shots():
    clips = make_clips(shots_at("v", 20.0, [3.0, 6.0]), CONFIG)
    assert [clip.shot_ids for clip in clips] == [("v-0", "v-1"), ("v-2",)]
    assert [clip.index for clip in clips] == [0, 1]


@given(st.lists(st.floats(0.05, 60.0), min_size=1, max_size=30))
def test_clips_partition_the_time_line_and_keep_their_length(lengths):
    edges = [0.0]
    for length in lengths:
        edges.append(edges[-1] + length)
    clips = make_clips(shots_at("v", edges[-1], edges[1:-1]), CONFIG)
    assert clips[0].start_s == 0.0
    assert clips[-1].stop_s == edges[-1]
    for first, second in pairwise(clips):
        assert first.stop_s == second.start_s
    assert all(clip.stop_s - clip.start_s <= CONFIG.max_s + 1e-6 for clip in clips)
    assert len({clip.clip_id for clip in clips}) == len(clips)
    shots = {shot.shot_id: shot for shot in shots_at("v", edges[-1], edges[1:-1])}
    for clip in clips:
        for name in clip.shot_ids:
            assert shots[name].start_s < clip.stop_s
            assert shots[name].stop_s > clip.start_s
