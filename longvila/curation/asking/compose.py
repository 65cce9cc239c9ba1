"""From what a model gave for each kind to drafts with an answer and wrong answers.

Times, orders and numbers are not left to the model: a time is that of the clips it names, an order that of
its events' clips, and the wrong ones beside them are made from the same video.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any, NamedTuple

from longvila.curation.asking.outline import Line, span_text
from longvila.curation.asking.sheet import Draft
from longvila.curation.asking.wording import clean
from longvila.records import content_id

CANNOT_TELL = "It cannot be told from the video."
EVIDENCE_CLIPS, NO_EVIDENCE = "evidence-clips", "no-evidence"
MAX_EVIDENCE = 64
_LETTERS = "abcdefgh"


class Seen(NamedTuple):
    """What a request showed, by number, and how many wrong answers are wanted."""

    lines: Mapping[int, Line]
    num_distractors: int


def draft_of(kind: str, item: Mapping[str, Any], seen: Seen) -> Draft:
    """Make a draft of one item of a model's answer; ``problem`` says what is wrong with it.

    Raises what a wrong item raises: ``KeyError``, ``TypeError``, ``ValueError``.
    """
    made = _COMPOSE.get(kind, _plain)(item, seen)
    if not made.clips:
        made = made._replace(problem=NO_EVIDENCE)
    elif not all(number in seen.lines for number in made.clips):
        made = made._replace(problem=EVIDENCE_CLIPS)
    return Draft(
        kind=kind,
        question=clean(made.question),
        answer=clean(made.answer),
        distractors=tuple(clean(text) for text in made.distractors),
        clips=made.clips[:MAX_EVIDENCE],
        problem=made.problem,
    )


class _Made(NamedTuple):
    question: str
    answer: str
    distractors: Sequence[str]
    clips: tuple[int, ...]
    problem: str = ""


def order_of(
    events: Sequence[tuple[str, float]], *, seed: str, num_distractors: int
) -> tuple[str, str, list[str]]:
    """Return (question, answer, wrong answers) for events with their times, shown in an order by chance.

    ``events`` are in the order of time.
    """
    rng = random.Random(seed)
    shown = list(range(len(events)))
    while shown == sorted(shown):
        rng.shuffle(shown)
    letters = {event: f"({_LETTERS[place]})" for place, event in enumerate(shown)}
    listed = "; ".join(f"{letters[event]} {events[event][0].rstrip('.;')}" for event in shown)
    answer = ", ".join(letters[event] for event in range(len(events)))
    others = [", ".join(order) for order in permutations(letters.values()) if ", ".join(order) != answer]
    question = f"In which order are these seen in the video? {listed}"
    return question, answer, rng.sample(others, min(num_distractors, len(others)))


def other_numbers(count: int, *, seed: str, num_distractors: int) -> list[str]:
    """Return wrong numbers near ``count``, the right one anywhere among them."""
    rng = random.Random(seed)
    below = rng.randint(0, min(num_distractors, max(0, count)))
    near = [count - i for i in range(1, below + 1)]
    near += [count + i for i in range(1, num_distractors - below + 1)]
    return [str(number) for number in near]


def other_spans(
    lines: Sequence[Line], taken: Sequence[Line], *, seed: str, num_distractors: int
) -> list[str]:
    """Return the times of other stretches of as many clips, which do not touch the right one."""
    first, last = taken[0].number, taken[-1].number
    size = len(taken)
    starts = [
        i for i in range(len(lines) - size + 1)
        if lines[i + size - 1].number < first or lines[i].number > last
    ]  # fmt: skip
    chosen: list[str] = []
    random.Random(seed).shuffle(starts)
    for i in starts:
        text = span_text(lines[i].start_s, lines[i + size - 1].stop_s)
        if text not in chosen and len(chosen) < num_distractors:
            chosen.append(text)
    return chosen


def _plain(item: Mapping[str, Any], _: Seen) -> _Made:
    wrong = [str(text) for text in item["distractors"]]
    return _Made(item["question"], item["answer"], wrong, _numbers(item))


def _counting(item: Mapping[str, Any], seen: Seen) -> _Made:
    count, question = int(item["count"]), str(item["question"])
    wrong = other_numbers(count, seed=content_id(question), num_distractors=seen.num_distractors)
    return _Made(question, str(count), wrong, _numbers(item), "count" if not 0 <= count <= 1000 else "")


def _unanswerable(item: Mapping[str, Any], _: Seen) -> _Made:
    return _Made(item["question"], CANNOT_TELL, [str(text) for text in item["distractors"]], _numbers(item))


def _localisation(item: Mapping[str, Any], seen: Seen) -> _Made:
    question, numbers = str(item["question"]), _numbers(item)
    lines = [seen.lines[number] for number in sorted(numbers) if number in seen.lines]
    if not lines or len(lines) < len(numbers):
        return _Made(question, "", [], numbers)
    if lines[-1].number - lines[0].number >= len(lines):
        return _Made(question, "", [], numbers, "evidence-apart")
    wrong = other_spans(
        list(seen.lines.values()), lines, seed=content_id(question), num_distractors=seen.num_distractors
    )
    return _Made(question, span_text(lines[0].start_s, lines[-1].stop_s), wrong, numbers)


def _order(item: Mapping[str, Any], seen: Seen) -> _Made:
    events = [(clean(str(event["event"])), int(event["clip"])) for event in item["events"]]
    numbers = tuple(number for _, number in events)
    told = "; ".join(text for text, _ in events)
    if not all(number in seen.lines for number in numbers):
        return _Made(told, "", [], numbers)
    distinct = len(set(numbers)) == len(numbers) and len({text.casefold() for text, _ in events}) == len(
        events
    )
    if not distinct or not 3 <= len(events) <= len(_LETTERS):
        return _Made(told, "", [], numbers, "events")
    timed = sorted(
        ((text, seen.lines[number].start_s) for text, number in events), key=lambda event: event[1]
    )
    question, answer, wrong = order_of(timed, seed=content_id(told), num_distractors=seen.num_distractors)
    return _Made(question, answer, wrong, tuple(sorted(numbers)))


def _numbers(item: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(int(number) for number in item["evidence"]))


_COMPOSE: dict[str, Callable[[Mapping[str, Any], Seen], _Made]] = {
    "counting": _counting,
    "unanswerable": _unanswerable,
    "localisation": _localisation,
    "order": _order,
}
