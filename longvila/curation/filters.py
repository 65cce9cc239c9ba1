"""Which questions are kept: well formed, with evidence, not doubled, and not to be answered without looking.

Whoever does not see the video can still guess the commonest answer to a question. So answers are balanced per
question text, by leaving out some of the common ones, and what a blind guesser gets right is reported.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from longvila.records import Question, Record, Rejection, Split

VERSION = 1
STEP = "filter-questions"
_MIN_PER_ANSWER = 3
_MIN_PER_TEXT = 12  # training questions
_SLACK_S = 1e-6


class BlindBaseline(Record):
    """What answers to one kind of question are worth without seeing the video."""

    kind: str
    split: Split
    num_questions: int
    num_answers: int
    accuracy: float  # of saying what training answered most often to the same text
    commonest: float  # share of the split's own commonest answer to each text, which nobody knows beforehand


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
    return kept, rejections


def blind_baselines(questions: Iterable[Question]) -> list[BlindBaseline]:
    """Return, per kind and split, how often the training set's commonest answer to the same text is right."""
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
            accuracy=sum(guesses.get(q.question) == q.answer for q in group) / len(group),
            commonest=sum(max(counts[split][text].values()) for text in {q.question for q in group})
            / len(group),
        )
        for (kind, split), group in sorted(groups.items())
    ]


def _problem(question: Question, durations_s: dict[str, float]) -> tuple[str, str] | None:
    """Return (reason, detail) of what is wrong with one question by itself."""
    if not re.fullmatch(r"[a-z]+", question.answer):
        return "answer-form", f"the answer {question.answer!r} is not one word in small letters"
    if question.options and question.answer not in question.options:
        return "answer-unknown", f"the answer {question.answer!r} is not among {', '.join(question.options)}"
    if question.answer in re.findall(r"[a-z]+", question.question.lower()):
        return "answer-leaks", f"the answer {question.answer!r} stands in {question.question!r}"
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


def _doubled(question: Question, seen: set[tuple[str, str, float, float]]) -> tuple[str, str] | None:
    key = (question.video_id, question.question, question.start_s, question.stop_s)
    if key in seen:
        return "duplicate", "the same is asked of the same window"
    seen.add(key)
    return None


def _balance(questions: Sequence[Question], split: Split) -> tuple[list[Question], list[Rejection]]:
    """Leave out some of the common answers to each question text of one split; the others pass.

    An answer is kept at most as often as the middle one of that text's answers. Texts and answers too rare
    to be learned are left out, and held-out answers that training never gives.
    """
    counts = _counts(q for q in questions if q.split == split)
    trained = _counts(q for q in questions if q.split == "train")
    limits: dict[tuple[str, str], int] = {}
    for text, answers in counts.items():
        common = {
            a: n for a, n in answers.items() if trained[text][a] >= _MIN_PER_ANSWER and n >= _MIN_PER_ANSWER
        }
        ranked = sorted(common.values(), reverse=True)
        cap = ranked[len(ranked) // 2] if len(ranked) > 1 else 0
        learned = trained[text].total() if split == "heldout" else sum(min(n, cap) for n in ranked)
        if learned < _MIN_PER_TEXT:
            continue
        limits |= {(text, answer): min(number, cap) for answer, number in common.items()}
    taken: Counter[tuple[str, str]] = Counter()
    keep: set[str] = set()
    for question in sorted((q for q in questions if q.split == split), key=lambda q: q.question_id):
        key = (question.question, question.answer)
        if taken[key] < limits.get(key, 0):
            taken[key] += 1
            keep.add(question.question_id)
    kept = [q for q in questions if q.split != split or q.question_id in keep]
    out = [
        _rejection(q, "balance", f"too many or too few questions {q.question!r} are answered {q.answer!r}")
        for q in questions
        if q.split == split and q.question_id not in keep
    ]
    return kept, out


def _counts(questions: Iterable[Question]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        counts[question.question][question.answer] += 1
    return counts


def _rejection(question: Question, reason: str, detail: str) -> Rejection:
    return Rejection(
        item_id=question.question_id, step=STEP, reason=reason, detail=detail, source=question.video_id
    )
