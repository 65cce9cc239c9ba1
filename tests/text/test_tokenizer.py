"""Tokenizers made from text, and published ones made ready for frames."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from longvila.errors import InputError
from longvila.text import (
    IMAGE_TOKEN,
    build_word_tokenizer,
    image_token_id,
    load_tokenizer,
    prepare_tokenizer,
    separator_ids,
)
from longvila.text.tokenizer import SPECIAL_TOKENS, reserved_tokens
from tests.text.tokenizers import LINES, chatml_tokenizer, word_tokenizer

words = st.lists(st.text("abcxyz", min_size=1, max_size=6), min_size=1, max_size=30)


@settings(deadline=None)
@given(words, st.randoms(use_true_random=False))
def test_the_same_words_give_the_same_ids(some: list[str], random) -> None:
    first = build_word_tokenizer([" ".join(some)])
    shuffled = random.sample(some, len(some))
    assert build_word_tokenizer([*shuffled, "\n"]).get_vocab() == first.get_vocab()


@settings(deadline=None)
@given(words)
def test_known_words_come_back(some: list[str]) -> None:
    tokenizer = build_word_tokenizer(some)
    text = " ".join(some)
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_words_signs_and_line_ends_are_tokens_and_spaces_are_not() -> None:
    tokenizer = build_word_tokenizer(["What is 12, here?"])
    ids = tokenizer("What  is\n12, here? never").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["what", "is", "\n", "12", ",", "here", "?", "<unk>"]


def test_case_does_not_matter() -> None:
    tokenizer = build_word_tokenizer(["what is Red"])
    assert tokenizer("What IS red").input_ids == tokenizer("what is red").input_ids
    assert tokenizer.unk_token_id not in tokenizer("What IS red").input_ids


def test_special_tokens_come_first_and_frames_marks_are_no_words() -> None:
    tokenizer = build_word_tokenizer(["<frames> red"])
    assert tuple(tokenizer.convert_ids_to_tokens(list(range(5)))) == SPECIAL_TOKENS
    assert sorted(tokenizer.get_vocab()) == sorted([*SPECIAL_TOKENS, "\n", "red"])
    assert tokenizer(f"{IMAGE_TOKEN} red").input_ids == [image_token_id(tokenizer), 6]


@pytest.mark.parametrize("make", [word_tokenizer, chatml_tokenizer])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, make) -> None:
    tokenizer = make()
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')  # AutoTokenizer would go by this
    loaded = load_tokenizer(tmp_path)
    for line in [*LINES, "<image>unknown words\n\n, don't", "<|im_start|>user\nred<|im_end|><eos>"]:
        assert loaded(line).input_ids == tokenizer(line).input_ids
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.chat_template == tokenizer.chat_template
    assert reserved_tokens(loaded) == reserved_tokens(tokenizer)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


def test_a_published_tokenizer_gets_what_it_lacks_behind_its_words() -> None:
    tokenizer = chatml_tokenizer()
    last = image_token_id(tokenizer)
    assert last == len(tokenizer) - 1 == max(tokenizer.get_vocab().values())
    assert tokenizer.bos_token == "[BOS]"
    assert tokenizer.pad_token == "<|endoftext|>"
    assert len(prepare_tokenizer(tokenizer)) == last + 1
    assert {"[BOS]", "<|im_start|>", "<|im_end|>", "<|endoftext|>", IMAGE_TOKEN} <= set(
        reserved_tokens(tokenizer)
    )


def test_without_an_end_it_is_refused() -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(InputError, match="Set eos_token"):
        prepare_tokenizer(bare)
    with pytest.raises(InputError, match="prepare_tokenizer"):
        image_token_id(bare)


def test_separator() -> None:
    tokenizer = word_tokenizer()
    assert separator_ids(tokenizer, None) == separator_ids(tokenizer, "") == ()
    assert separator_ids(tokenizer, "\n") == (tokenizer.get_vocab()["\n"],)
    assert len(separator_ids(chatml_tokenizer(), "\n")) == 1
