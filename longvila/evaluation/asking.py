"""Put questions with known answers to a model, many at once, and log what it said."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from longvila.evaluation.scoring import EXTRACTOR_ID, Item, Scored, score
from longvila.evaluation.trials import TrialAnswer, TrialLog
from longvila.model.module import LongVila
from longvila.records import Sample, Turn
from longvila.text.encode import encode_sample
from longvila.text.tokenizer import FRAMES_MARK, separator_ids

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Told (done, total) after each packed row."""


@dataclass(frozen=True)
class Ask:
    """One question and its expected answer. ``frame_rows`` int64 [F]: its frames, as rows of the features."""

    trial_id: str
    group: str
    sample: Sample
    frame_rows: np.ndarray


@dataclass(frozen=True)
class Asker:
    """A model that is asked, and the log of its answers."""

    model: LongVila
    tokenizer: PreTrainedTokenizerFast
    log: TrialLog
    prompt_id: str
    max_row_tokens: int

    @property
    def seats_per_frame(self) -> int:
        """Tokens of one frame in the sequence, its separator included."""
        return self.model.tokens_per_frame + len(self._separator)

    @property
    def _separator(self) -> tuple[int, ...]:
        return separator_ids(self.tokenizer, self.model.frame_separator)

    def ask(self, asks: Sequence[Ask], features_FkD: Tensor, *, progress: Progress | None = None) -> None:
        """Ask what the log has no answer to yet. Every packed row's answers are on disk before the next."""
        pending = [ask for ask in asks if self.log.get(ask.trial_id) is None]
        items = [self._item(ask) for ask in pending]
        done = len(asks) - len(pending)
        for row in score(self.model, items, features_FkD, max_row_tokens=self.max_row_tokens):
            self.log.append(self._answer(pending[i], items[i], scored) for i, scored in row)
            done += len(row)
            if progress is not None:
                progress(done, len(asks))

    def answers(self, trial_ids: Sequence[str]) -> list[TrialAnswer]:
        """Return the logged answers of trials that were asked, in their order."""
        answers = [self.log.get(trial_id) for trial_id in trial_ids]
        assert None not in answers
        return [answer for answer in answers if answer is not None]

    def _item(self, ask: Ask) -> Item:
        encoded = encode_sample(
            ask.sample,
            self.tokenizer,
            tokens_per_frame=self.model.tokens_per_frame,
            frame_separator_ids=self._separator,
            max_frames=max(1, ask.sample.num_frames),
        )
        return Item(encoded, ask.frame_rows)

    def _answer(self, ask: Ask, item: Item, scored: Scored) -> TrialAnswer:
        return TrialAnswer(
            trial_id=ask.trial_id,
            weight_digest=self.log.weight_digest,
            prompt_id=self.prompt_id,
            extractor_id=EXTRACTOR_ID,
            group=ask.group,
            num_frames=ask.sample.num_frames,
            num_tokens=item.encoded.num_tokens,
            expected=self._text(scored.expected),
            said=self._text(scored.said),
            teacher_forced=scored.teacher_forced,
            generated=scored.generated,
        )

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()


def counting_from(done: int, total: int, progress: Progress | None) -> Progress | None:
    """Return a progress report for a part of the work: it counts on from ``done`` of ``total``."""
    if progress is None:
        return None
    return lambda some, _: progress(done + some, total)


def without_frames(sample: Sample) -> Sample:
    """Return the same questions with the frames left out: the text-only control."""
    turns = tuple(
        Turn(role=turn.role, text=turn.text.replace(FRAMES_MARK, "").strip())
        if FRAMES_MARK in turn.text
        else turn
        for turn in sample.conversations
    )
    return sample.model_copy(update={"conversations": turns, "frame_times_s": (), "kind": "text"})
