"""Options of multiple-choice questions: alike, and with the right one in every place equally often."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from longvila.curation.asking.compose import CANNOT_TELL
from longvila.curation.asking.wording import same_words, words
from longvila.records import Question, Record, Split

LETTERS = "ABCDEFGH"
_LONGER, _SLACK_CHARS = 1.6, 8
_UNNAMED = ("all of the above", "none of the above", "all of these", "none of these", "both", "not shown")


class OptionReport(Record):
    """Where the right options of one split stand, and whether their length gives them away."""

    split: Split
    num_questions: int
    positions: dict[str, int]
    expected: dict[str, float]  # by chance: not all questions have the same number of options
    longest_is_right: float  # share; that of a random option is the mean of 1 / options
    by_chance: float


def form_of(question_id: str, forms: Sequence[str]) -> str:
    """Return the form of a question: always the same for one id, each form equally often."""
    return forms[int(question_id[:8], 16) % len(forms)]


def options_of(answer: str, distractors: Iterable[str], *, num_options: int, seed: str) -> tuple[str, ...]:
    """Return the answer among wrong ones, at most ``num_options``, in an order by chance.

    Wrong answers that say the same as the right one or as one another are left out.
    """
    kept: list[str] = []
    for text in distractors:
        if text and not any(same_words(text, other) for other in (answer, *kept)):
            kept.append(text)
    rng = random.Random(seed)
    chosen = [answer, *rng.sample(kept, min(num_options - 1, len(kept)))]
    rng.shuffle(chosen)
    return tuple(chosen)


def options_problem(answer: str, options: Sequence[str]) -> tuple[str, str] | None:
    """Return (reason, detail) of what is wrong with a question's options."""
    wrong = [option for option in options if option != answer]
    if len(wrong) + 1 != len(options):
        return "answer-unknown", f"the answer {answer!r} is not one of the options {', '.join(options)}"
    if len(wrong) < 1 or (len(wrong) < 2 and len(words(answer)) > 1):
        return "options-few", f"beside the answer {answer!r} only {len(wrong)} wrong answers are left"
    for i, option in enumerate(options):
        if any(same_words(option, other) for other in options[:i]):
            return "options-same", f"two options say the same: {option!r}"
        if " ".join(words(option)) in _UNNAMED:
            return "options-same", f"the option {option!r} speaks of the others"
    if answer == CANNOT_TELL:  # stands among others too: see arrange
        return None
    longest, shortest = max(map(len, wrong)), min(map(len, wrong))
    long = len(answer) > _LONGER * longest + _SLACK_CHARS
    if long or _LONGER * len(answer) + _SLACK_CHARS < shortest:
        return "options-uneven", f"the answer {answer!r} is known by its length beside {', '.join(wrong)}"
    return None


def arrange(questions: Sequence[Question]) -> list[Question]:
    """Put the right options in every place equally often, per split, kind and number of options.

    What is answered by "it cannot be told" would be known by that option alone, so it stands as a wrong one
    in so many others that it is right as often as any option. All else, and the order, stays as it is.
    """
    arranged = {q.question_id: q for q in _with_cannot_tell([q for q in questions if q.form == "choice"])}
    groups: dict[tuple[str, str, int], list[Question]] = defaultdict(list)
    for question in arranged.values():
        groups[question.split, question.kind, len(question.options)].append(question)
    next_place: Counter[tuple[str, int]] = Counter()  # goes on from kind to kind
    for (split, _, count), group in sorted(groups.items()):
        for question in sorted(group, key=lambda q: q.question_id):
            place = next_place[split, count] % count
            next_place[split, count] += 1
            arranged[question.question_id] = _placed(question, place)
    return [arranged.get(question.question_id, question) for question in questions]


def option_reports(questions: Iterable[Question]) -> list[OptionReport]:
    """Return where right options stand in each split."""
    groups: dict[Split, list[Question]] = defaultdict(list)
    for question in questions:
        if question.form == "choice":
            groups[question.split].append(question)
    return [_report(split, group) for split, group in sorted(groups.items())]


def _report(split: Split, group: Sequence[Question]) -> OptionReport:
    places = Counter(LETTERS[q.options.index(q.answer)] for q in group)
    expected = {
        letter: round(sum(1 / len(q.options) for q in group if len(q.options) > place), 3)
        for place, letter in enumerate(LETTERS[: max(len(q.options) for q in group)])
    }
    longest = [
        (1 / sum(len(o) == len(q.answer) for o in q.options))
        if len(q.answer) == max(map(len, q.options)) else 0.0
        for q in group
    ]  # fmt: skip
    return OptionReport(
        split=split,
        num_questions=len(group),
        positions={letter: places[letter] for letter in expected},
        expected=expected,
        longest_is_right=sum(longest) / len(group),
        by_chance=sum(1 / len(q.options) for q in group) / len(group),
    )


def _placed(question: Question, place: int) -> Question:
    wrong = [option for option in question.options if option != question.answer]
    wrong.insert(place, question.answer)
    return question.model_copy(update={"options": tuple(wrong)})


def _with_cannot_tell(questions: Sequence[Question]) -> list[Question]:
    changed = {question.question_id: question for question in questions}
    splits: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        splits[question.split].append(question)
    for group in splits.values():
        lacking = sum(len(q.options) - 1 for q in group if q.answer == CANNOT_TELL)
        lacking -= sum(q.answer != CANNOT_TELL and CANNOT_TELL in q.options for q in group)
        free = [q for q in group if CANNOT_TELL not in q.options and len(q.options) > 2]
        for question in sorted(free, key=lambda q: q.question_id[::-1])[: max(0, lacking)]:
            wrong = [option for option in question.options if option != question.answer]
            options = tuple(CANNOT_TELL if option == wrong[-1] else option for option in question.options)
            changed[question.question_id] = question.model_copy(update={"options": options})
    return list(changed.values())
