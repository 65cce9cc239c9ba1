"""Needle videos: what is asked is in the frames, once, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from longvila.config.synthetic import NeedleSetConfig
from longvila.curation.composing.frame_bank import FrameBank, join_videos
from longvila.curation.composing.needles import (
    COLOURS,
    FRAMES_MARK,
    Needle,
    card_size,
    compose,
    draw_card,
    draw_length,
    draw_needles,
    load_digits,
    needle_samples,
)
from longvila.errors import ConfigError
from longvila.text.tokenizer import FRAMES_MARK as TEXT_FRAMES_MARK


@pytest.fixture(scope="module")
def bank() -> FrameBank:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    return join_videos([("film", frames, np.arange(40) / 2)])


def test_splits_share_no_digit_and_each_value_is_in_both() -> None:
    train, heldout = load_digits("train"), load_digits("heldout")
    pictures = {digit.tobytes() for digit in train.ink_n88}
    assert not pictures & {digit.tobytes() for digit in heldout.ink_n88}
    assert set(train.values) == set(heldout.values) == set(range(10))


def test_a_card_has_its_colour_at_the_border_and_black_ink_inside() -> None:
    digits = load_digits("train")
    card = draw_card("orange", digits.ink_n88[0], size=16)
    assert card.shape == (16, 16, 3)
    assert np.all(card[:2] == COLOURS["orange"])
    assert np.all(card[:, -2:] == COLOURS["orange"])
    assert card[2:-2, 2:-2].sum(axis=2).min() < 100


def test_compose_changes_only_the_cells_of_its_needles(bank: FrameBank) -> None:
    digits = load_digits("train")
    frames = bank.frames_NHW3[:6]
    needles = (Needle("red", 3, 5, position=2, cell=1), Needle("blue", 7, 9, position=4, cell=2))
    composed = compose(frames, needles, digits)
    changed = (composed != frames).any(axis=3)
    assert changed[2, :16, 16:].any()
    assert changed[4, 16:, :16].any()
    changed[2, :16, 16:] = False
    changed[4, 16:, :16] = False
    assert not changed.any()


def test_small_frames_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"frames\.size of at least 16"):
        card_size(15)


@pytest.mark.parametrize(("depth", "position"), [(0.0, 0), (0.25, 10), (0.5, 20), (1.0, 40)])
def test_the_asked_needle_lies_at_its_depth(depth: float, position: int) -> None:
    digits = load_digits("heldout")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        needles = draw_needles(rng, digits, num_frames=41, count=4, depth=depth)
        assert needles[0].position == position
        assert len({needle.position for needle in needles}) == len({n.colour for n in needles}) == 4
        assert all(digits.values[needle.digit] == needle.value for needle in needles)


def test_fewer_needles_where_frames_or_colours_do_not_suffice() -> None:
    rng, digits = np.random.default_rng(0), load_digits("train")
    assert len(draw_needles(rng, digits, num_frames=2, count=4)) == 2
    assert len(draw_needles(rng, digits, num_frames=99, count=20)) == len(COLOURS)


def test_samples_ask_for_each_needle_and_answer_with_its_digit(bank: FrameBank) -> None:
    config = NeedleSetConfig(name="n", num_samples=50, min_frames=2, max_frames=9, needles=3)
    lengths = set()
    for sample, frames in needle_samples(config, bank, "train"):
        turns = sample.conversations
        hidden = {n["colour"]: str(n["value"]) for n in sample.provenance["needles"]}
        asked = {turns[i].text.split()[-1]: turns[i + 1].text for i in range(0, len(turns), 2)}
        assert asked == hidden
        assert len(hidden) == min(3, len(frames))
        assert [turn.text.count(FRAMES_MARK) for turn in turns] == [1] + [0] * (len(turns) - 1)
        assert sample.num_frames == len(frames)
        lengths.add(len(frames))
    assert lengths == set(range(2, 10))


def test_a_sample_depends_on_its_number_alone(bank: FrameBank) -> None:
    few = NeedleSetConfig(name="n", num_samples=3, min_frames=2, max_frames=9)
    many = few.model_copy(update={"num_samples": 8})
    other_seed = few.model_copy(update={"seed": 1})
    first = list(needle_samples(few, bank, "train"))
    for (sample, frames), (same, same_frames) in zip(
        first, needle_samples(many, bank, "train"), strict=False
    ):
        assert sample == same
        assert np.array_equal(frames, same_frames)
    for (sample, _), (different, _) in zip(first, needle_samples(other_seed, bank, "train"), strict=True):
        assert sample.provenance != different.provenance


def test_log_uniform_lengths_give_each_doubling_its_share() -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([draw_length(rng, 8, 128, lengths="log_uniform") for _ in range(4000)])
    assert lengths.min() == 8
    assert lengths.max() == 128
    shares = np.histogram(lengths, bins=[8, 16, 32, 64, 129])[0] / 4000
    assert np.all(np.abs(shares - 0.25) < 0.04)


def test_the_frames_mark_is_the_tokenizers() -> None:
    assert FRAMES_MARK == TEXT_FRAMES_MARK
