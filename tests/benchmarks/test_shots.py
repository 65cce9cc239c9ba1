from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.shots import SYSTEMS
from benchmarks.video.compose import Piece, Plan, Truth, compose, plan
from benchmarks.video.matching import Counts, count, matched
from benchmarks.video.truth import DEMO, DEMO_NAMES, pieces_of, truth_of
from longvila.media.decode import iterate_frames
from longvila.media.probe import probe
from tests.media.making import grey_ramp, write_video


def test_a_cut_may_be_off_by_one_frame():
    truths = [Truth(9, 10, "cut")]
    offsets = [frame for frame in range(5, 16) if matched(truths, [(frame - 1, frame)]) == [0]]
    assert offsets == [9, 10, 11]


def test_a_gradual_transition_matches_by_overlap():
    truths = [Truth(20, 30, "dissolve")]
    hits = [frame for frame in range(15, 36) if matched(truths, [(frame - 1, frame)]) == [0]]
    assert hits == list(range(21, 31))
    assert matched(truths, [(5, 20)]) == [None]
    assert matched(truths, [(5, 21)]) == [0]


def test_each_boundary_is_used_once():
    truths = [Truth(9, 10, "cut"), Truth(20, 30, "dissolve")]
    assert count(truths, [(9, 10), (10, 11), (22, 24), (26, 28)]) == Counts(true=2, found=4, right=2)
    assert matched(truths, [(8, 29)]) == [0, None]
    total = count(truths, [(9, 10), (40, 41)]) + count(truths, [])
    assert total == Counts(4, 2, 1)
    assert (total.precision, total.recall, total.f1) == (0.5, 0.25, pytest.approx(1 / 3))


def test_plans_are_drawn_by_seed_and_fit_their_shots():
    pieces = [Piece(Path(name), 0, length) for name, length in (("a", 40), ("b", 100), ("c", 300))]
    made = plan(pieces, num_shots=40, seed=3)
    assert made == plan(pieces, num_shots=40, seed=3)
    assert made != plan(pieces, num_shots=40, seed=4)
    assert set(made.kinds) == {"cut", "dissolve", "fade"}
    for index, piece in enumerate(made.pieces):
        used = sum(made.lengths[max(0, index - 1) : index + 1])
        assert 0 < used < piece.stop - piece.start or used == 0


def test_a_composed_video_is_what_the_truth_says(tmp_path):
    """Two ramps of grey: the mixed frames, and no others, lie between them."""
    dark = write_video(tmp_path / "dark.mp4", grey_ramp(20, step=0), fps=10)
    bright = write_video(tmp_path / "bright.mp4", [frame + 150 for frame in grey_ramp(20, step=0)], fps=10)
    pieces = (Piece(dark, 0, 20), Piece(bright, 0, 20), Piece(dark, 0, 20), Piece(bright, 0, 20))
    made = Plan(pieces, ("dissolve", "cut", "fade"), (5, 0, 8), (0, 0, 255))
    truths = compose(made, tmp_path / "made.mp4", size=(48, 64), fps=10)
    assert truths == [Truth(14, 20, "dissolve"), Truth(34, 35, "cut"), Truth(46, 55, "fade")]
    lumas = np.array([picture[30:, 40:].mean() for _, picture in iterate_frames(tmp_path / "made.mp4")])
    assert len(lumas) == 67
    assert np.ptp(lumas[:15]) < 4
    assert (np.diff(lumas[14:21]) > 10).all()
    assert np.ptp(lumas[20:35]) < 4
    assert lumas[50:52].max() > 240


def test_the_demo_has_its_truth():
    assert len(DEMO_NAMES) == 4
    for name in DEMO_NAMES:
        truths = truth_of(DEMO / name)
        assert truths == sorted(truths)
        assert all(a.first_new <= b.last_old for a, b in pairwise(truths))
        num_frames = probe(DEMO / name).num_frames
        assert all(0 <= p.start < p.stop <= num_frames for p in pieces_of(DEMO / name, num_frames))


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_finds_the_cut(name):
    found = SYSTEMS[name](DEMO / "11-cut-short.mp4")
    assert any(first_new == 205 for _, first_new in found)
