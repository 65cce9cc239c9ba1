"""Which questions are kept: well formed, with evidence, not doubled, and not to be answered without looking.

Whoever does not see the video can still guess the commonest answer to a question. So answers are balanced
per question text (per kind where texts differ from video to video), by leaving out some of the common ones,
and what a blind guesser gets right is reported. What a language model wrote was checked video by video, by
guessing too (``asking.judge``); here the verdicts become rejections. At last right options are put in every
place equally often.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import get_args

from longvila.config.language import QuestionKind
from longvila.curation.asking.checks import rejection_of
from longvila.curation.asking.compose import CANNOT_TELL
from longvila.curation.asking.options import arrange, options_problem
from longvila.curation.asking.wording import contains, markup, words
from longvila.curation.asking.writer import WRITER as MODEL_WRITER
from longvila.records import Question, Record, Rejection, Split

VERSION = 2
STEP = "filter-questions"
_MIN_PER_ANSWER = 3
_MIN_PER_TEXT = 12  # training questions
_SLACK_S = 1e-6
_ONE_WORD_KINDS = frozenset(get_args(QuestionKind))
_OWN_ANSWERS = ("order", "localisation", "ocr", "summary")  # each video's answers are its own


class BlindBaseline(Record):
    """What answers to one kind of question are worth without seeing the video."""

    kind: str
    split: Split
    num_questions: int
    num_answers: int
    accuracy: float  # of saying what training answered most often to the same text
    commonest: float  # share of the split's own commonest answer to each text, which nobody knows beforehand
    guessed: float | None = None  # share of a model's guesses that were right, where one was asked


def filter_questions(
    questions: Sequence[Question], durations_s: dict[str, float]
) -> tuple[list[Question], list[Rejection]]:
    """Keep the good ones of all videos together. Each one is kept or rejected with a reason."""
    kept: list[Question] = []
    rejections: list[Rejection] = []
    seen: set[tuple[str, str, float, float]] = set()
    for question in questions:
        problem = _problem(question, durations_s) or _doubled(question, seen)
        if problem:
            rejections.append(_rejection(question, *problem))
        else:
            kept.append(question)
    for split in ("train", "heldout"):
        kept, out = _balance(kept, split)
        rejections += out
    return arrange(kept), rejections


def blind_baselines(questions: Iterable[Question]) -> list[BlindBaseline]:
    """Return, per kind and split, how often the training set's commonest answer to the same text is right.

    Where texts differ from video to video, the commonest answer of the kind stands for it.
    """
    questions = list(questions)
    counts = {split: _counts(q for q in questions if q.split == split) for split in ("train", "heldout")}
    guesses = {text: answers.most_common(1)[0][0] for text, answers in counts["train"].items()}
    groups: dict[tuple[str, Split], list[Question]] = defaultdict(list)
    for question in questions:
        groups[question.kind, question.split].append(question)
    return [
        BlindBaseline(
            kind=kind,
            split=split,
            num_questions=len(group),
            num_answers=len({question.answer for question in group}),
            accuracy=sum(guesses.get(_asked(q)) == q.answer for q in group) / len(group),
            commonest=sum(max(counts[split][text].values()) for text in {_asked(q) for q in group})
            / len(group),
            guessed=_guessed(group),
        )
        for (kind, split), group in sorted(groups.items())
    ]


def _guessed(questions: Iterable[Question]) -> float | None:
    found = [q.checks["blind"] for q in questions if isinstance(q.checks.get("blind"), dict)]
    tries = sum(blind["tries"] for blind in found)
    return sum(blind["right"] for blind in found) / tries if tries else None


def _is_one_word(question: Question) -> bool:
    return question.kind in _ONE_WORD_KINDS and question.writer != MODEL_WRITER


def _asked(question: Question) -> str:
    """What questions with comparable answers have in common: their text, or their kind."""
    return question.question if _is_one_word(question) else f"{question.writer}/{question.kind}"


def _problem(question: Question, durations_s: dict[str, float]) -> tuple[str, str] | None:
    """Return (reason, detail) of what is wrong with one question by itself."""
    problem = rejection_of(question) or (
        _one_word_problem(question) if _is_one_word(question) else _phrase_problem(question)
    )
    if problem:
        return problem
    duration_s = durations_s.get(question.video_id)
    if duration_s is None:
        return "no-video", f"video {question.video_id} is not in the set"
    if not 0 <= question.start_s < question.stop_s <= duration_s + _SLACK_S:
        return "window", f"the window [{question.start_s}, {question.stop_s}) is not inside the video"
    if not question.evidence:
        return "no-evidence", "no span of the video is named"
    for span in question.evidence:
        inside = question.start_s - _SLACK_S <= span.start_s < span.stop_s <= question.stop_s + _SLACK_S
        if not inside:
            return "evidence", f"the evidence [{span.start_s}, {span.stop_s}) is not inside the window"
    return None


def _one_word_problem(question: Question) -> tuple[str, str] | None:
    if not re.fullmatch(r"[a-z]+", question.answer):
        return "answer-form", f"the answer {question.answer!r} is not one word in small letters"
    if question.options and question.answer not in question.options:
        return "answer-unknown", f"the answer {question.answer!r} is not among {', '.join(question.options)}"
    if question.answer in re.findall(r"[a-z]+", question.question.lower()):
        return "answer-leaks", f"the answer {question.answer!r} stands in {question.question!r}"
    return None


def _phrase_problem(question: Question) -> tuple[str, str] | None:
    """What is wrong with a question in words of its own. What a model wrote was searched for more before."""
    if not words(question.question) or not words(question.answer):
        return "no-text", "the question or its answer is empty"
    for text in (question.question, question.answer, *question.options):
        if found := markup(text):
            return "markup", f"{found!r} means something to a tokenizer"
    if question.kind not in ("order", "summary") and contains(question.question, question.answer):
        return "answer-leaks", f"the answer {question.answer!r} stands in {question.question!r}"
    return options_problem(question.answer, question.options) if question.form == "choice" else None


def _doubled(question: Question, seen: set[tuple[str, str, float, float]]) -> tuple[str, str] | None:
    key = (question.video_id, question.question, question.start_s, question.stop_s)
    if key in seen:
        return "duplicate", "the same is asked of the same window"
    seen.add(key)
    return None


def _balance(questions: Sequence[Question], split: Split) -> tuple[list[Question], list[Rejection]]:
    """Leave out some of the common answers to each question text of one split; the others pass.

    An answer is kept at most as often as the middle one of that text's answers. Texts and answers too rare
    to be learned are left out, and held-out answers that training never gives. Where texts differ from video
    to video, a kind's answers are balanced and none is too rare. What a model wrote is left as it is.
    """
    here = [question for question in questions if question.split == split and _is_balanced(question)]
    trained = _counts(q for q in questions if q.split == "train")
    limits: dict[tuple[str, str], int] = {}
    for one_word in (True, False):
        counts = _counts(q for q in here if _is_one_word(q) == one_word)
        for asked, answers in counts.items():
            found = _limits(answers, trained[asked], split) if one_word else _caps(answers)
            limits |= {(asked, answer): number for answer, number in found.items()}
    taken: Counter[tuple[str, str]] = Counter()
    out: dict[str, Rejection] = {}
    for question in sorted(here, key=lambda question: question.question_id):
        key = (_asked(question), question.answer)
        taken[key] += 1
        if taken[key] > limits.get(key, 0):
            detail = f"too many or too few questions {key[0]!r} are answered {question.answer!r}"
            out[question.question_id] = _rejection(question, "balance", detail)
    kept = [question for question in questions if question.question_id not in out]
    return kept, [out[q.question_id] for q in questions if q.question_id in out]


def _is_balanced(question: Question) -> bool:
    told_apart = question.kind in _OWN_ANSWERS or question.answer == CANNOT_TELL
    return question.writer != MODEL_WRITER and not told_apart


def _limits(answers: Counter[str], trained: Counter[str], split: Split) -> dict[str, int]:
    """How often each answer to one text may stand; nothing for a text that cannot be learned."""
    common = {a: n for a, n in answers.items() if trained[a] >= _MIN_PER_ANSWER and n >= _MIN_PER_ANSWER}
    ranked = sorted(common.values(), reverse=True)
    cap = ranked[len(ranked) // 2] if len(ranked) > 1 else 0
    learned = trained.total() if split == "heldout" else sum(min(n, cap) for n in ranked)
    return {a: min(n, cap) for a, n in common.items()} if learned >= _MIN_PER_TEXT else {}


def _caps(answers: Counter[str]) -> dict[str, int]:
    """How often each answer to the questions of one kind may stand: as the middle one; once if alone."""
    ranked = sorted(answers.values(), reverse=True)
    cap = ranked[len(ranked) // 2] if len(ranked) > 1 else 1
    return {answer: min(number, cap) for answer, number in answers.items()}


def _counts(questions: Iterable[Question]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        counts[_asked(question)][question.answer] += 1
    return counts


def _rejection(question: Question, reason: str, detail: str) -> Rejection:
    return Rejection(
        item_id=question.question_id, step=STEP, reason=reason, detail=detail, source=question.video_id
    )
