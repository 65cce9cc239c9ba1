"""Samples to token ids, labels and frame seats, before any pixel is read.

Placeholders are expanded here: each visual token has its own seat, so every length is known from integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from longvila.errors import ItemError
from longvila.records import Sample, Turn
from longvila.text.chat import ChatFormat, Rendered, chat_format, render
from longvila.text.tokenizer import FRAMES_MARK, IMAGE_TOKEN, image_token_id, reserved_tokens

IGNORE_INDEX = -100

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Encoded:
    """One sample as the model sees it. T tokens, F frames.

    ``labels`` stand at their own token's place (not shifted) and are ``IGNORE_INDEX`` except for assistant
    text and its end token. ``frame_indices`` says which of the sample's frames are shown, ``frame_seats``
    where the first visual token of each stands.
    """

    input_ids: Ids
    labels: Ids
    frame_indices: Ids
    frame_seats: Ids

    @property
    def num_tokens(self) -> int:
        """Length of the sample."""
        return len(self.input_ids)

    @property
    def num_scored(self) -> int:
        """Tokens with a label, the first one excepted: nothing stands before it that could predict it."""
        return int((self.labels[1:] != IGNORE_INDEX).sum())


def thin_frames(num_frames: int, max_frames: int) -> Ids:
    """Return which frames are shown: all, or ``max_frames`` of them spread evenly, both ends included."""
    if num_frames <= max_frames:
        return np.arange(num_frames, dtype=np.int64)
    if max_frames == 1:
        return np.array([num_frames // 2], dtype=np.int64)
    steps = max_frames - 1
    return (np.arange(max_frames, dtype=np.int64) * (num_frames - 1) + steps // 2) // steps


def encode_sample(
    sample: Sample,
    tokenizer: PreTrainedTokenizerFast,
    *,
    tokens_per_frame: int,
    frame_separator_ids: Sequence[int] = (),
    max_frames: int,
    max_tokens: int | None = None,
) -> Encoded:
    """Encode a sample for training: the ids equal the chat template's, with the frames put in.

    A single ``gpt`` turn of kind ``text`` is plain text: no template, all of it scored, closed by the end of
    text. Otherwise one ``<frames>`` stands for all frames, or there is one for each frame.

    Raises ``ItemError`` (``turns``, ``placeholders``, ``special-token``, ``too-long``) for a sample that
    cannot be used.
    """
    if sample.kind == "text" and [turn.role for turn in sample.conversations] == ["gpt"]:
        rendered = _plain_text(sample, tokenizer)
    else:
        _check_turns(sample.key, sample.conversations, last="gpt")
        rendered = _render(sample.key, sample.conversations, tokenizer)
    shown = _shown_frames(sample, max_frames)
    encoded = _encode(rendered, tokenizer, shown, tokens_per_frame, frame_separator_ids)
    if max_tokens is not None and encoded.num_tokens > max_tokens:
        raise ItemError(
            "too-long",
            f"Sample {sample.key!r} has {encoded.num_tokens} tokens ({len(shown)} frames × "
            f"{tokens_per_frame} and text), more than max_tokens={max_tokens}. "
            "Raise max_tokens or lower max_frames.",
        )
    return encoded


def encode_prompt(
    turns: Sequence[Turn],
    tokenizer: PreTrainedTokenizerFast,
    *,
    num_frames: int,
    tokens_per_frame: int,
    frame_separator_ids: Sequence[int] = (),
) -> Encoded:
    """Encode a conversation that ends with a question, up to where the answer begins. Nothing is scored.

    Raises ``ItemError`` as ``encode_sample`` does.
    """
    _check_turns("prompt", turns, last="human")
    shown = np.arange(num_frames, dtype=np.int64)
    _check_marks("prompt", turns, num_frames, thinned=False)
    encoded = _encode(
        _render("prompt", turns, tokenizer), tokenizer, shown, tokens_per_frame, frame_separator_ids
    )
    return Encoded(
        encoded.input_ids,
        np.full_like(encoded.labels, IGNORE_INDEX),
        encoded.frame_indices,
        encoded.frame_seats,
    )


def _check_turns(key: str, turns: Sequence[Turn], *, last: str) -> None:
    roles = [turn.role for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    expected = [("human", "gpt")[number % 2] for number in range(len(spoken))]
    if not spoken or spoken != expected or spoken[-1] != last:
        raise ItemError(
            "turns",
            f"Sample {key!r} has the turns {roles}. Give human and gpt in turn, after a system turn or none, "
            f"{last} last.",
        )


def _shown_frames(sample: Sample, max_frames: int) -> Ids:
    shown = thin_frames(sample.num_frames, max_frames)
    _check_marks(sample.key, sample.conversations, sample.num_frames, thinned=len(shown) < sample.num_frames)
    return shown


def _check_marks(key: str, turns: Sequence[Turn], num_frames: int, *, thinned: bool) -> None:
    marks = sum(turn.text.count(FRAMES_MARK) for turn in turns if turn.role == "human")
    stray = sum(turn.text.count(FRAMES_MARK) for turn in turns if turn.role != "human")
    right = marks == min(num_frames, 1) or (marks == num_frames and not thinned)
    if stray or not right:
        raise ItemError(
            "placeholders",
            f"Sample {key!r} has {num_frames} frames and {marks + stray} {FRAMES_MARK}, {stray} outside "
            "human turns. Give one for all frames, or one for each, in human turns; none without frames.",
        )


def _render(key: str, turns: Sequence[Turn], tokenizer: PreTrainedTokenizerFast) -> Rendered:
    chat: ChatFormat = chat_format(tokenizer)
    for turn in turns:
        _refuse_special(key, turn.text, tokenizer)
    marked = [
        Turn(role=turn.role, text=turn.text.replace(FRAMES_MARK, IMAGE_TOKEN))
        if FRAMES_MARK in turn.text
        else turn
        for turn in turns
    ]
    return render(marked, chat)


def _plain_text(sample: Sample, tokenizer: PreTrainedTokenizerFast) -> Rendered:
    text = sample.conversations[0].text
    _refuse_special(sample.key, text, tokenizer)
    rendered = Rendered()
    rendered.add_scored(text, str(tokenizer.eos_token))
    rendered.add(str(tokenizer.eos_token))
    return rendered


def _refuse_special(key: str, text: str, tokenizer: PreTrainedTokenizerFast) -> None:
    # A caption or a title from outside must not be able to end a turn or to claim a frame's seat.
    for token in reserved_tokens(tokenizer):
        if token in text:
            raise ItemError(
                "special-token", f"Sample {key!r} has the special token {token!r} in its text. Take it out."
            )


def _encode(
    rendered: Rendered,
    tokenizer: PreTrainedTokenizerFast,
    shown: Ids,
    tokens_per_frame: int,
    separator: Sequence[int],
) -> Encoded:
    encoding = tokenizer.backend_tokenizer.encode(rendered.text, add_special_tokens=False)
    ids = np.array(encoding.ids, dtype=np.int64)
    labels = np.full_like(ids, IGNORE_INDEX)
    starts = np.array([start for start, _ in encoding.offsets], dtype=np.int64)
    for start, stop in rendered.scored:
        first, last = np.searchsorted(starts, (start, stop))
        labels[first:last] = ids[first:last]
    if not len(shown):
        return Encoded(ids, labels, shown, shown)
    marks = np.flatnonzero(ids == image_token_id(tokenizer))
    return _expand(ids, labels, marks, shown, tokens_per_frame, np.array(separator, dtype=np.int64))


def _expand(ids: Ids, labels: Ids, marks: Ids, shown: Ids, tokens_per_frame: int, separator: Ids) -> Encoded:
    """Replace each mark by its frames: for each, ``tokens_per_frame`` placeholders and the separator."""
    placeholder = ids[marks[0]]
    frame = np.concatenate([np.full(tokens_per_frame, placeholder), separator])
    per_mark = len(shown) // len(marks)
    block = np.tile(frame, per_mark)
    ignored = np.full(len(block), IGNORE_INDEX)
    id_parts, label_parts, seats = [], [], []
    done, length = 0, 0
    for mark in marks:
        id_parts += [ids[done:mark], block]
        label_parts += [labels[done:mark], ignored]
        length += mark - done
        seats.append(length + len(frame) * np.arange(per_mark))
        length += len(block)
        done = mark + 1
    return Encoded(
        np.concatenate([*id_parts, ids[done:]]),
        np.concatenate([*label_parts, labels[done:]]),
        shown,
        np.concatenate(seats).astype(np.int64),
    )
