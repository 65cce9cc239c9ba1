"""Recall texts: the asked value stands in the text, and the text has the length it should have."""

from __future__ import annotations

import pytest

from longvila.config.synthetic import RecallTextConfig
from longvila.curation.composing.needles import COLOURS
from longvila.curation.composing.recall import FILLER, recall_samples, shortest_text
from longvila.errors import ConfigError
from longvila.text.encode import encode_sample
from longvila.text.tokenizer import build_word_tokenizer


def test_answers_follow_their_keys_in_the_text() -> None:
    config = RecallTextConfig(name="r", num_samples=100, min_tokens=20, max_tokens=60, pairs=3)
    for sample in recall_samples(config, "train"):
        turns = sample.conversations
        body = turns[0].text.split()
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            key = question.text.split()[-1]
            assert body[body.index(key) + 1] == answer.text
        assert {word for word in body if word in COLOURS} == {t.text.split()[-1] for t in turns[::2]}


def test_lengths_are_those_of_the_word_tokenizer() -> None:
    config = RecallTextConfig(name="r", num_samples=60, min_tokens=7, max_tokens=90, pairs=4)
    samples = list(recall_samples(config, "heldout"))
    tokenizer = build_word_tokenizer(turn.text for sample in samples for turn in sample.conversations)
    for sample in samples:
        encoded = encode_sample(sample, tokenizer, tokens_per_frame=1, max_frames=1)
        assert encoded.num_tokens == 1 + sample.provenance["tokens"]  # <bos> comes first
        assert encoded.num_scored == 2 * sample.provenance["pairs"]
    lengths = [sample.provenance["tokens"] for sample in samples]
    assert min(lengths) < 14
    assert max(lengths) > 60


def test_a_sample_depends_on_its_number_split_and_seed() -> None:
    config = RecallTextConfig(name="r", num_samples=4, min_tokens=20, max_tokens=60)
    fewer = config.model_copy(update={"num_samples": 2})
    assert list(recall_samples(config, "train"))[:2] == list(recall_samples(fewer, "train"))
    train, heldout = recall_samples(config, "train"), recall_samples(config, "heldout")
    assert all(a.conversations != b.conversations for a, b in zip(train, heldout, strict=True))


def test_texts_without_room_for_a_pair_are_refused() -> None:
    config = RecallTextConfig(name="r", num_samples=1, min_tokens=3, max_tokens=60)
    with pytest.raises(ConfigError, match=f"Use at least {shortest_text(1)}"):
        next(recall_samples(config, "train"))


def test_filler_holds_no_key_and_no_value() -> None:
    assert not set(FILLER) & (set(COLOURS) | {str(i) for i in range(10)})
    assert len(set(FILLER)) == len(FILLER)
