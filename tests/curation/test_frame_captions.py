"""Captions of single frames say what is measured or drawn, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from longvila.config.data import FrameCaptionConfig
from longvila.curation.frame_bank import FrameBank, join_videos
from longvila.curation.frame_captions import (
    NO_LABEL,
    frame_caption_samples,
    label_frames,
    measure_frame,
)
from longvila.curation.needles import COLOURS


@pytest.fixture(scope="module")
def bank() -> FrameBank:
    colours = [(200, 40, 30), (30, 90, 40), (40, 60, 200), (128, 128, 128)]
    frames = np.stack([np.full((32, 32, 3), colour, dtype=np.uint8) for colour in colours])
    return join_videos([("film", frames, np.arange(4.0))])


@pytest.mark.parametrize(
    ("colour", "family"),
    [
        ((200, 40, 30), "red"),
        ((200, 30, 40), "red"),
        ((230, 130, 30), "orange"),
        ((220, 210, 40), "yellow"),
        ((30, 160, 40), "green"),
        ((40, 200, 200), "cyan"),
        ((40, 60, 200), "blue"),
        ((200, 40, 190), "magenta"),
        ((128, 128, 128), "grey"),
        ((3, 0, 0), "grey"),
    ],
)
def test_the_colour_is_the_family_of_most_pixels(colour: tuple[int, int, int], family: str) -> None:
    frame = np.full((8, 8, 3), 128, dtype=np.uint8)
    frame[:5] = colour
    assert measure_frame(frame)["colour"] == family


@pytest.mark.parametrize(("level", "word"), [(20, "dark"), (95, "medium"), (200, "bright")])
def test_brightness_is_the_mean_luma(level: int, word: str) -> None:
    assert measure_frame(np.full((8, 8, 3), level, dtype=np.uint8))["brightness"] == word


def test_captions_state_the_facts_of_their_frame(bank: FrameBank) -> None:
    cards = 0
    for sample, frames in frame_caption_samples(FrameCaptionConfig(num_samples=200), bank, "train"):
        text, facts = sample.conversations[1].text.split(), sample.provenance["facts"]
        assert set(facts.values()) <= set(text)
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
