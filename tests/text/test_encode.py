"""Samples to ids, labels and seats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from longvila.errors import ItemError
from longvila.records import Sample, Turn
from longvila.text import (
    FRAMES_MARK,
    IGNORE_INDEX,
    IMAGE_TOKEN,
    Encoded,
    encode_prompt,
    encode_sample,
    image_token_id,
    separator_ids,
    thin_frames,
)
from tests.text.tokenizers import chatml_tokenizer, word_tokenizer

TOKENIZERS = {"word": word_tokenizer(), "chatml": chatml_tokenizer()}
MESSAGE_ROLES = {"system": "system", "human": "user", "gpt": "assistant"}

plain_text = st.lists(st.sampled_from(["red", "card", "the", "seven", "what", "?", "zebra"]), min_size=1).map(
    " ".join
)


def sample(*texts: str, num_frames: int = 0, kind: Any = "video", roles: tuple[Any, ...] = ()) -> Sample:
    """A sample of alternating turns; the first is a question."""
    roles = roles or tuple(("human", "gpt")[i % 2] for i in range(len(texts)))
    turns = tuple(Turn(role=role, text=text) for role, text in zip(roles, texts, strict=True))
    times = tuple(float(i) for i in range(num_frames))
    return Sample(key="s1", kind=kind, split="train", conversations=turns, frame_times_s=times)


def encode(item: Sample, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> Encoded:
    settings: dict[str, Any] = {"tokens_per_frame": 4, "max_frames": 64, **changes}
    return encode_sample(item, tokenizer, **settings)


def scored(encoded: Encoded, tokenizer: PreTrainedTokenizerFast) -> str:
    return tokenizer.decode(encoded.labels[encoded.labels != IGNORE_INDEX])


@pytest.mark.parametrize("name", list(TOKENIZERS))
@settings(deadline=None)
@given(
    texts=st.lists(plain_text, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0),
    num_frames=st.integers(0, 9),
    max_frames=st.integers(1, 9),
    tokens_per_frame=st.integers(1, 5),
    separator=st.sampled_from([None, "\n", " the red"]),
)
def test_ids_equal_the_chat_template_with_every_mark_expanded(
    name: str,
    texts: list[str],
    num_frames: int,
    max_frames: int,
    tokens_per_frame: int,
    separator: str | None,
) -> None:
    tokenizer = TOKENIZERS[name]
    if num_frames:
        texts = [f"{FRAMES_MARK}\n{texts[0]}", *texts[1:]]
    item = sample(*texts, num_frames=num_frames)
    between = separator_ids(tokenizer, separator)
    encoded = encode(
        item,
        tokenizer,
        max_frames=max_frames,
        tokens_per_frame=tokens_per_frame,
        frame_separator_ids=between,
    )
    shown = min(num_frames, max_frames)
    messages = [
        {"role": MESSAGE_ROLES[turn.role], "content": turn.text.replace(FRAMES_MARK, IMAGE_TOKEN)}
        for turn in item.conversations
    ]
    marked = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    image = image_token_id(tokenizer)
    frame = [image] * tokens_per_frame + list(between)
    expected = [one for token in marked for one in (frame * shown if token == image else [token])]
    assert encoded.input_ids.tolist() == expected
    seats = [seat + offset for seat in encoded.frame_seats for offset in range(tokens_per_frame)]
    assert seats == np.flatnonzero(encoded.input_ids == image).tolist()
    assert len(encoded.frame_indices) == len(encoded.frame_seats) == shown


@pytest.mark.parametrize(("name", "end"), [("word", "<eos>"), ("chatml", "<|im_end|>")])
def test_assistant_text_and_its_end_are_scored_and_nothing_else(name: str, end: str) -> None:
    tokenizer = TOKENIZERS[name]
    item = sample(f"{FRAMES_MARK} what is red", "seven", "the green card", "a dog", num_frames=3)
    encoded = encode(item, tokenizer)
    kept = encoded.labels != IGNORE_INDEX
    assert np.array_equal(encoded.labels[kept], encoded.input_ids[kept])
    assert [text.strip() for text in scored(encoded, tokenizer).split(end)] == ["seven", "a dog", ""]
    assert encoded.num_scored == kept.sum()


def test_the_answer_follows_the_last_word_of_the_question() -> None:
    """What the miniature needs: the key, then at once the value (no role tokens between them)."""
    tokenizer = word_tokenizer()
    encoded = encode(sample(f"{FRAMES_MARK} what is on the red", "seven", num_frames=1), tokenizer)
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids)[-3:] == ["red", "seven", "<eos>"]


def test_one_mark_for_each_frame() -> None:
    tokenizer = word_tokenizer()
    item = sample(f"{FRAMES_MARK} red {FRAMES_MARK}", "seven", f"the {FRAMES_MARK}", "dog", num_frames=3)
    encoded = encode(item, tokenizer, tokens_per_frame=2)
    tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids)
    image = [IMAGE_TOKEN] * 2
    assert tokens == ["<bos>", *image, "red", *image, "seven", "<eos>", "the", *image, "dog", "<eos>"]
    assert encoded.frame_seats.tolist() == [1, 4, 9]


def test_plain_text_is_scored_whole() -> None:
    tokenizer = word_tokenizer()
    encoded = encode(sample("the red card", kind="text", roles=("gpt",)), tokenizer)
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids) == ["the", "red", "card", "<eos>"]
    assert np.array_equal(encoded.labels, encoded.input_ids)
    assert encoded.num_scored == 3
    assert len(encoded.frame_seats) == 0


def test_a_prompt_is_the_start_of_the_sample() -> None:
    for tokenizer in TOKENIZERS.values():
        whole = encode(sample(f"{FRAMES_MARK} what is red", "seven", num_frames=2), tokenizer)
        turn = Turn(role="human", text=f"{FRAMES_MARK} what is red")
        prompt = encode_prompt([turn], tokenizer, num_frames=2, tokens_per_frame=4)
        assert np.array_equal(prompt.input_ids, whole.input_ids[: prompt.num_tokens])
        assert whole.labels[prompt.num_tokens] != IGNORE_INDEX
        assert (prompt.labels == IGNORE_INDEX).all()
        assert np.array_equal(prompt.frame_seats, whole.frame_seats)


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(1, 600))
def test_thinning_is_even_and_keeps_both_ends(num_frames: int, max_frames: int) -> None:
    shown = thin_frames(num_frames, max_frames)
    assert len(shown) == min(num_frames, max_frames)
    assert len(set(shown.tolist())) == len(shown)
    if len(shown) > 1:
        assert (shown[0], shown[-1]) == (0, num_frames - 1)
        steps = np.diff(shown)
        assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize(
    ("item", "reason", "message"),
    [
        (sample("red", "seven", num_frames=2), "placeholders", "2 frames and 0"),
        (sample(f"{FRAMES_MARK} red", "seven"), "placeholders", "0 frames and 1"),
        (sample(f"{FRAMES_MARK} {FRAMES_MARK} red", "seven", num_frames=3), "placeholders", "3 frames and 2"),
        (sample("red", f"seven {FRAMES_MARK}", num_frames=1), "placeholders", "1 outside human turns"),
        (sample(f"{FRAMES_MARK} red", "seven", num_frames=40), "too-long", "max_tokens=100"),
        (sample("red <image>", "seven"), "special-token", "<image>"),
        (sample("red", "seven <eos> eight"), "special-token", "<eos>"),
        (sample("red"), "turns", "gpt last"),
        (sample("red", "blue", roles=("gpt", "human")), "turns", "human and gpt in turn"),
        (sample("red", "seven", "green", roles=("human", "human", "gpt")), "turns", "human and gpt in turn"),
        (sample("be kind", roles=("system",)), "turns", "human and gpt in turn"),
    ],
)
def test_what_cannot_be_used_says_why(item: Sample, reason: str, message: str) -> None:
    with pytest.raises(ItemError, match=message) as caught:
        encode(item, word_tokenizer(), max_tokens=100)
    assert caught.value.reason == reason
    assert "s1" in caught.value.detail


def test_marks_of_thinned_single_frames_are_refused() -> None:
    item = sample(f"{FRAMES_MARK} {FRAMES_MARK} red", "seven", num_frames=2)
    assert encode(item, word_tokenizer(), max_frames=2).frame_indices.tolist() == [0, 1]
    with pytest.raises(ItemError, match="placeholders"):
        encode(item, word_tokenizer(), max_frames=1)


def test_a_system_turn_may_come_first() -> None:
    tokenizer = chatml_tokenizer()
    encoded = encode(sample("the red", "what", "seven", roles=("system", "human", "gpt")), tokenizer)
    assert tokenizer.decode(encoded.input_ids).startswith("<|im_start|>system\nthe red<|im_end|>")
    assert scored(encoded, tokenizer) == "seven<|im_end|>"


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_a_data_set_is_encoded_without_rendering_the_template_for_each_sample(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = TOKENIZERS[name]
    items = [sample(f"{FRAMES_MARK} what is on the red", "seven", num_frames=8) for _ in range(50)]
    encode(items[0], tokenizer)
    renderings = []
    monkeypatch.setattr(type(tokenizer), "apply_chat_template", lambda *_, **__: renderings.append(1))
    assert len({encode(item, tokenizer).num_tokens for item in items}) == 1
    assert not renderings


def test_a_two_thousand_frame_video_keeps_a_seat_for_every_token() -> None:
    item = sample(f"{FRAMES_MARK} what is red", "seven", num_frames=2048)
    encoded = encode(item, word_tokenizer(), tokens_per_frame=196, max_frames=2048)
    assert encoded.num_tokens == 2048 * 196 + 6
    assert np.array_equal(encoded.frame_seats, 1 + 196 * np.arange(2048))
