"""Held-out questions on real video, against what can be known without seeing it.

Two baselines: the same model with the frames' tokens left out, and the commonest training answer of each
kind. Only what lies above both was seen.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from longvila.config.evaluation import QaEvalConfig
from longvila.data.reader import ShardReader
from longvila.evaluation.asking import Ask, Asker, Progress, counting_from, without_frames
from longvila.evaluation.questions import (
    PROMPT_ID,
    HeldOut,
    batches,
    clusters_of,
    commonest,
    held_out_questions,
    read_frames,
    training_answers,
)
from longvila.evaluation.results import KindScore, QaExample, QaResult
from longvila.evaluation.scoring import EXTRACTOR_ID
from longvila.evaluation.statistics import mcnemar, paired_difference, share_of
from longvila.evaluation.trials import TrialAnswer, TrialLog
from longvila.inference.features import encode_frames
from longvila.model.module import LongVila
from longvila.records import content_id

FRAMES_IN_MEMORY = 8192
EXAMPLES_PER_KIND = 4


class Graded(NamedTuple):
    """One question, graded three ways."""

    kind: str
    cluster: tuple[str, int]
    model: bool
    text_only: bool
    majority: bool


def run(
    model: LongVila,
    tokenizer: PreTrainedTokenizerFast,
    config: QaEvalConfig,
    *,
    reader: ShardReader,
    training: ShardReader | None,
    log: TrialLog,
    max_row_tokens: int = 8192,
    progress: Progress | None = None,
) -> QaResult:
    """Ask every held-out question of ``reader`` with and without its frames, and grade the answers.

    ``training`` is the training split of the same data set; none: no commonest answer is right. Raises
    InputError when there are no questions, or frames of another size than the model's.
    """
    began = time.perf_counter()
    questions = choose(held_out_questions(reader, max_frames=config.max_frames), config.max_questions)
    asker = Asker(model, tokenizer, log, PROMPT_ID, max_row_tokens)
    _ask_shown(asker, reader, questions, progress)
    _ask_blind(asker, questions, progress)
    answers = asker.answers([question.trial_id for question in questions])
    blind = asker.answers([_blind_id(question) for question in questions])
    counts = training_answers(training) if training is not None else {}
    clusters, cluster = clusters_of(questions)
    graded = _grade(questions, clusters, answers, blind, counts)
    kinds = sorted({grade.kind for grade in graded})
    return QaResult(
        dataset=config.dataset,
        prompt_id=PROMPT_ID,
        extractor_id=EXTRACTOR_ID,
        max_frames=config.max_frames,
        mean_frames=float(np.mean([answer.num_frames for answer in answers])),
        cluster=cluster,
        num_videos=len({question.sample.video_id for question in questions}),
        unanswered=sum(not answer.said for answer in answers),
        overall=_score("all", graded, config.confidence),
        kinds=tuple(
            _score(kind, [grade for grade in graded if grade.kind == kind], config.confidence)
            for kind in kinds
        ),
        examples=_examples(questions, answers, blind),
        seconds=time.perf_counter() - began,
    )


def choose(questions: Sequence[HeldOut], at_most: int | None) -> list[HeldOut]:
    """Take ``at_most`` questions by a random order that is always the same; keep their order."""
    by_chance = sorted(questions, key=lambda question: question.trial_id)
    chosen = {question.trial_id for question in by_chance[:at_most]}
    return [question for question in questions if question.trial_id in chosen]


def _ask_shown(
    asker: Asker, reader: ShardReader, questions: Sequence[HeldOut], progress: Progress | None
) -> None:
    """Ask with frames, so many at a time that their visual tokens fit into memory."""
    pending = [question for question in questions if asker.log.get(question.trial_id) is None]
    done = len(questions) - len(pending)
    for batch in batches(pending, max_frames=FRAMES_IN_MEMORY):
        frames_FHW3, rows = read_frames(reader, batch, size=asker.model.image_size)
        asks = [
            Ask(question.trial_id, question.kind, question.sample, row)
            for question, row in zip(batch, rows, strict=True)
        ]
        features = encode_frames(asker.model, frames_FHW3)
        asker.ask(asks, features, progress=counting_from(done, 2 * len(questions), progress))
        done += len(batch)


def _ask_blind(asker: Asker, questions: Sequence[HeldOut], progress: Progress | None) -> None:
    none = np.zeros(0, dtype=np.int64)
    asks = [
        Ask(_blind_id(question), f"text-only {question.kind}", without_frames(question.sample), none)
        for question in questions
    ]
    size = asker.model.image_size
    features = encode_frames(asker.model, np.zeros((0, size, size, 3), dtype=np.uint8))
    asker.ask(asks, features, progress=counting_from(len(questions), 2 * len(questions), progress))


def _blind_id(question: HeldOut) -> str:
    return content_id("text-only", question.trial_id)


def _grade(
    questions: Sequence[HeldOut],
    clusters: Sequence[tuple[str, int]],
    answers: Sequence[TrialAnswer],
    blind: Sequence[TrialAnswer],
    counts: Mapping[str, Counter[str]],
) -> list[Graded]:
    return [
        Graded(
            question.kind,
            cluster,
            model=answer.generated,
            text_only=text_only.generated,
            majority=commonest(counts, question.kind) == question.answer,
        )
        for question, cluster, answer, text_only in zip(questions, clusters, answers, blind, strict=True)
    ]


def _examples(
    questions: Sequence[HeldOut], answers: Sequence[TrialAnswer], blind: Sequence[TrialAnswer]
) -> tuple[QaExample, ...]:
    """Keep the first questions of each kind, in an order that knows nothing of the answers."""
    kept: Counter[str] = Counter()
    examples = []
    order = sorted(range(len(questions)), key=lambda i: questions[i].trial_id)
    for question, answer, without in ((questions[i], answers[i], blind[i]) for i in order):
        kept[question.kind] += 1
        if kept[question.kind] <= EXAMPLES_PER_KIND:
            examples.append(
                QaExample(
                    question_id=question.question_id,
                    video_id=question.sample.video_id or "",
                    kind=question.kind,
                    question=question.text,
                    answer=question.answer,
                    said=answer.said,
                    said_blind=without.said,
                )
            )
    return tuple(examples)


def _score(kind: str, graded: Sequence[Graded], confidence: float) -> KindScore:
    model = [grade.model for grade in graded]
    text_only = [grade.text_only for grade in graded]
    majority = [grade.majority for grade in graded]
    clusters = [grade.cluster for grade in graded]
    return KindScore(
        kind=kind,
        model=share_of(model, confidence=confidence),
        text_only=share_of(text_only, confidence=confidence),
        majority=share_of(majority, confidence=confidence),
        gain=paired_difference(model, text_only, clusters, confidence=confidence),
        gain_over_majority=paired_difference(model, majority, clusters, confidence=confidence),
        mcnemar=mcnemar(model, text_only),
    )
