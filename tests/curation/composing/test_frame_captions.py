"""Captions of single frames say what is measured or drawn, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from longvila.config.synthetic import FrameCaptionConfig
from longvila.curation.composing.frame_bank import FrameBank, join_videos
from longvila.curation.composing.frame_captions import (
    NO_LABEL,
    cut_out,
    frame_caption_samples,
    label_frames,
    measure_frame,
)
from longvila.curation.composing.needles import COLOURS


@pytest.fixture(scope="module")
def bank() -> FrameBank:
    colours = [(200, 40, 30), (30, 90, 40), (40, 60, 200), (128, 128, 128)]
    frames = np.stack([np.full((32, 32, 3), colour, dtype=np.uint8) for colour in colours])
    return join_videos([("film", frames, np.arange(4.0))])


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((200, 30, 30), "red"),
        ((240, 140, 20), "orange"),
        ((230, 220, 40), "yellow"),
        ((30, 160, 40), "green"),
        ((40, 60, 200), "blue"),
        ((128, 128, 128), "grey"),
        ((3, 0, 0), "black"),
    ],
)
def test_the_colour_is_that_of_most_pixels(rgb: tuple[int, int, int], name: str) -> None:
    frame = np.full((8, 8, 3), 250, dtype=np.uint8)
    frame[:5] = rgb
    assert measure_frame(frame)["colour"] == name


@pytest.mark.parametrize(
    ("side", "rows", "columns"),
    [
        ("left", slice(None), slice(0, 4)),
        ("right", slice(None), slice(-4, None)),
        ("top", slice(0, 4), slice(None)),
        ("bottom", slice(-4, None), slice(None)),
        ("nowhere", slice(0, 0), slice(None)),
    ],
)
def test_the_lightest_side_is_where_the_light_is(side: str, rows: slice, columns: slice) -> None:
    frame = np.full((12, 12, 3), 60, dtype=np.uint8)
    frame[rows, columns] = 200
    assert measure_frame(frame)["light"] == side


def test_a_cut_out_shows_a_part_of_the_frame_in_its_size() -> None:
    ramp = np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], 32, axis=1).repeat(3, axis=2)
    cuts = [cut_out(np.random.default_rng(seed), ramp) for seed in range(20)]
    assert all(
        cut.shape == ramp.shape and cut.min() >= ramp.min() and cut.max() <= ramp.max() for cut in cuts
    )
    assert len({cut.tobytes() for cut in cuts}) > 10


@pytest.mark.parametrize(("level", "word"), [(60, "dark"), (130, "medium"), (200, "bright")])
def test_brightness_is_the_mean_luma(level: int, word: str) -> None:
    assert measure_frame(np.full((8, 8, 3), level, dtype=np.uint8))["brightness"] == word


def test_captions_state_the_facts_of_their_frame(bank: FrameBank) -> None:
    cards = 0
    for sample, frames in frame_caption_samples(FrameCaptionConfig(num_samples=200), bank, "train"):
        text, facts = sample.conversations[1].text.split(), sample.provenance["facts"]
        assert {value for name, value in facts.items() if name != "luma"} <= set(text)
        assert sample.num_frames == len(frames) == 1
        if "card" in facts:
            cards += 1
            wanted = COLOURS[facts["card"]]
            assert (frames[0] == wanted).all(axis=2).sum() > 60
        else:
            assert facts == measure_frame(frames[0])
    assert 90 < cards < 150


def test_labels_are_classes_with_gaps_where_a_fact_is_not_known() -> None:
    labels = label_frames(
        [{"card": "red", "digit": "3"}, {"colour": "green"}, {"card": "blue", "digit": "1"}]
    )
    assert labels["card"].tolist() == [1, NO_LABEL, 0]
    assert labels["digit"].tolist() == [1, NO_LABEL, 0]
    assert labels["colour"].tolist() == [NO_LABEL, 0, NO_LABEL]
