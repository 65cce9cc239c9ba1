"""Many short questions in one forward pass, and what the model would answer to each.

Questions are packed into rows; packed documents never see one another. Logits are computed at the places
that predict the answer only.

**One pass gives the greedy answer too.** With the expected answer given after the question, the argmax at
its first place is the first token that greedy decoding says. If it is the expected one, decoding goes on from
the very same tokens, and so on: the greedy answer equals the expected one, its end included, exactly when
every argmax does. Where it does not, everything up to the first difference is still what the model says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longvila.errors import InputError
from longvila.model.module import LongVila
from longvila.parallel import Layout, make_attend, make_groups, register_attention
from longvila.text.encode import IGNORE_INDEX, Encoded

EXTRACTOR_ID = "greedy-exact-1"
"""An answer is right when the greedy tokens, up to and with the end token, are the expected ones."""

# T tokens of a row, n visual tokens and a answer tokens in it, F frames, k visual tokens of a frame, D width.


@dataclass(frozen=True)
class Item:
    """A question with its expected answer, and which rows of the features its frames are (int64 [F])."""

    encoded: Encoded
    frame_rows: np.ndarray

    def __post_init__(self) -> None:
        assert len(self.frame_rows) == len(self.encoded.frame_seats)


class Scored(NamedTuple):
    """The expected answer's tokens, its end token last, and the model's argmax at each of their places."""

    expected: tuple[int, ...]
    argmax: tuple[int, ...]

    @property
    def teacher_forced(self) -> bool:
        """The published protocol: every token of the answer is the argmax; the end is not asked for."""
        return self.argmax[:-1] == self.expected[:-1]

    @property
    def generated(self) -> bool:
        """The greedy answer is the expected one and ends there."""
        return self.argmax == self.expected

    @property
    def said(self) -> tuple[int, ...]:
        """What greedy decoding says, up to and with the first token that is not the expected one."""
        same = [a == e for a, e in zip(self.argmax, self.expected, strict=True)]
        return self.argmax[: same.index(False) + 1] if False in same else self.argmax


def score(
    model: LongVila, items: Sequence[Item], features_FkD: Tensor, *, max_row_tokens: int
) -> Iterator[list[tuple[int, Scored]]]:
    """Yield, one packed row after another, the numbers of the items in it and how they were answered.

    ``features_FkD`` are the visual tokens that the items' ``frame_rows`` point into. An item longer than
    ``max_row_tokens`` gets a row of its own.
    """
    register_attention()
    lengths = [item.encoded.num_tokens for item in items]
    for row in pack_rows(lengths, max_row_tokens):
        with torch.no_grad():
            answers = _score_row(model, [items[i] for i in row], features_FkD)
        yield list(zip(row, answers, strict=True))


def pack_rows(lengths: Sequence[int], max_row_tokens: int) -> list[list[int]]:
    """Divide documents into rows of at most ``max_row_tokens``, like lengths together, longest rows last."""
    if max_row_tokens < 1:
        raise InputError(f"max_row_tokens={max_row_tokens}: give at least 1, e.g. 8192")
    rows: list[list[int]] = []
    room = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not rows or lengths[i] > room:
            rows.append([])
            room = max_row_tokens
        rows[-1].append(i)
        room -= lengths[i]
    return rows


def _score_row(model: LongVila, items: Sequence[Item], features_FkD: Tensor) -> list[Scored]:
    layout = Layout(tuple(item.encoded.num_tokens for item in items))
    attend = make_attend(layout, make_groups())
    device = features_FkD.device
    starts = layout.cu_seqlens[:-1]
    ids_T = np.zeros(layout.padded_length, dtype=np.int64)
    ids_T[: layout.num_tokens] = np.concatenate([item.encoded.input_ids for item in items])
    frame_rows = np.concatenate([item.frame_rows for item in items])
    seats = np.concatenate(
        [start + item.encoded.frame_seats for start, item in zip(starts, items, strict=True)]
    )
    seats_n = (seats[:, None] + np.arange(features_FkD.shape[1])).reshape(-1)
    rows_nD = features_FkD[_on(frame_rows, device)].flatten(0, 1)
    embeds_1TD = model.embed(_on(ids_T, device)[None], rows_nD, _on(seats_n, device))
    hidden_1TD = model.decode(embeds_1TD, _on(layout.position_ids(), device)[None], attend=attend)
    return _answers(model, items, starts, hidden_1TD[0])


def _answers(model: LongVila, items: Sequence[Item], starts: np.ndarray, hidden_TD: Tensor) -> list[Scored]:
    places = [np.flatnonzero(item.encoded.labels != IGNORE_INDEX) for item in items]
    # The token before predicts; a label at a document's first place has none before it.
    before = np.concatenate([start + place - 1 for start, place in zip(starts, places, strict=True)])
    argmax_a = model.lm_head(hidden_TD[_on(before, hidden_TD.device)]).argmax(-1).tolist()
    answers, done = [], 0
    for item, place in zip(items, places, strict=True):
        expected = item.encoded.labels[place].tolist()
        answers.append(Scored(tuple(expected), tuple(argmax_a[done : done + len(place)])))
        done += len(place)
    return answers


def _on(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(device)
