"""Checks that ask a model: is the answer in the captions, and can it be known without them?

First a model that sees nothing guesses several times; a question that it gets right is worth nothing. Then a
model that sees the captions answers; where it does not find the answer, the captions do not carry it. Answers
that differ in their words are compared by a third prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from longvila.config.language import QuestionCheckConfig
from longvila.curation.asking.checks import LITERAL_KINDS, is_unanswerable, reject, rejection_of
from longvila.curation.asking.outline import BRACKETS, Line, estimate_tokens, render, sketch, time_text
from longvila.curation.asking.wording import clean, same_words, words
from longvila.curation.language.prompts import Prompt, load_prompt
from longvila.curation.language.protocol import LanguageModel
from longvila.errors import ItemError
from longvila.records import Question, Usage

VERSION = 1
PROMPTS = ("check-answer", "check-blind", "check-same")
_ANSWER_TOKENS, _VERDICT_TOKENS = 200, 40
_MIN_OVERLAP = 0.5  # of two spans of time: what both cover, of what either covers
_TIME = re.compile(r"(?<!\d)(?:(\d{1,2}):)?(\d{1,3}):(\d{2})(?!\d)")


class Checker:
    """Checks the questions of one video after another with a model."""

    def __init__(
        self,
        model: LanguageModel,
        config: QuestionCheckConfig,
        prompts: Mapping[str, Prompt],
        *,
        caption_tokens: int,
        pool: Executor | None = None,
    ) -> None:
        """``pool`` checks the questions of a video at once; without one they follow one another."""
        self.model, self.config, self.prompts, self.caption_tokens = model, config, prompts, caption_tokens
        self._map = pool.map if pool else map

    def check(
        self, questions: Sequence[Question], lines: Sequence[Line], duration_s: float
    ) -> list[Question]:
        """Return the questions with what was found in ``checks``, and what that cost in ``usage``.

        Those that are rejected already are not asked about. ``NetworkError`` when the model does not answer.
        """

        def one(question: Question) -> Question:
            if rejection_of(question) is not None or question.kind == "summary":
                return question
            return _Check(self, question, lines, duration_s).run()

        return list(self._map(one, questions))


class _Check:
    """The checks of one question, and what they cost."""

    def __init__(
        self, checker: Checker, question: Question, lines: Sequence[Line], duration_s: float
    ) -> None:
        self._checker, self._question, self._lines, self._duration_s = checker, question, lines, duration_s
        self._usage = Usage()
        self._found: dict[str, Any] = {}

    def run(self) -> Question:
        problem = None
        try:
            problem = self._blind() or self._answerable()
        except ItemError as error:
            problem = "unchecked", f"the checking model failed: {error}"
        question = self._question.model_copy(
            update={
                "checks": {**self._question.checks, **self._found},
                "usage": self._question.usage + self._usage,
            }
        )
        return reject(question, *problem) if problem else question

    def _blind(self) -> tuple[str, str] | None:
        tries, question = self._checker.config.blind_tries, self._question
        if not tries or is_unanswerable(question):
            return None
        guesses = [
            self._ask("check-blind", {"options": _turned(question, i)}, seed=i)["answer"]
            for i in range(tries)
        ]
        verdicts = {text: self._same(text) for text in dict.fromkeys(clean(str(g)) for g in guesses)}
        right = sum(verdicts[clean(str(guess))] for guess in guesses)
        self._found["blind"] = {"tries": tries, "right": right, "prompt_id": self._id("check-blind")}
        if right <= self._checker.config.max_blind_right:
            return None
        return "blind", f"guessed {right} of {tries} times without the video: {question.answer!r}"

    def _answerable(self) -> tuple[str, str] | None:
        if not self._checker.config.answerable:
            return None
        question, unanswerable = self._question, is_unanswerable(self._question)
        shown = self._shown()
        values = {
            "captions": render(shown),
            "duration": time_text(self._duration_s),
            "options": () if unanswerable else question.options if question.form == "choice" else (),
        }
        given = self._ask("check-answer", values)
        said = clean(str(given["answer"])) if given["answerable"] else ""
        self._found["answerable"] = {"answer": said, "prompt_id": self._id("check-answer")}
        if unanswerable:
            return ("answerable", f"the captions do say: {said!r}") if said else None
        if not said:
            return "not-answerable", "a model did not find the answer in the captions"
        if self._same(said):
            return None
        return "other-answer", f"a model read {said!r} in the captions, not {question.answer!r}"

    def _shown(self) -> list[Line]:
        """The captions that the question rests on; where the rest matters too, all, shortened if need be."""
        question, room = self._question, self._checker.caption_tokens
        ids = {evidence.clip_id for evidence in question.evidence}
        named = [line for line in self._lines if line.clip_id in ids]
        if question.kind in LITERAL_KINDS:
            return sketch(named, room)
        around = [
            line for line in self._lines if line.start_s < question.stop_s and line.stop_s > question.start_s
        ]
        if estimate_tokens(render(around)) <= room:
            return around
        named = sketch(named, room // 2)
        others = [line for line in around if line.clip_id not in ids]
        return sorted([*named, *sketch(others, room - estimate_tokens(render(named)))])

    def _same(self, said: str) -> bool:
        """Whether an answer is the right one: by its words, numbers or times, else by a judge."""
        question = self._question
        if not words(said):
            return False
        if same_words(said, question.answer):
            return True
        if question.form == "choice" and any(same_words(said, option) for option in question.options):
            return False
        if question.kind in _BY_FORM:
            return _BY_FORM[question.kind](said, question.answer)
        if not self._checker.config.judge:
            return False
        given = self._ask("check-same", {"expected": question.answer, "given": said})
        return given["same"] is True

    def _ask(self, name: str, values: Mapping[str, Any], *, seed: int = 0) -> dict[str, Any]:
        prompt = self._checker.prompts[name]
        told = {"question": self._question.question, **values}
        answer = self._checker.model.complete(
            prompt.messages({name: _plain(value) for name, value in told.items()}),
            max_tokens=_VERDICT_TOKENS if name == "check-same" else _ANSWER_TOKENS,
            schema=prompt.answer,
            seed=seed,
        )
        self._usage += answer.usage
        return _read(answer.text, (prompt.answer or {}).get("required", ()))

    def _id(self, name: str) -> str:
        return self._checker.prompts[name].id


def load_check_prompts() -> dict[str, Prompt]:
    """Read the prompts of the checks."""
    return {name: load_prompt(name) for name in PROMPTS}


def _read(text: str, required: Iterable[str]) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ItemError("bad-json", f"the answer is not JSON: {error}") from error
    if not isinstance(found, dict) or not all(name in found for name in required):
        raise ItemError("bad-json", f"the answer lacks {', '.join(required)}")
    return found


def _plain(value: Any) -> Any:
    """A text (or several) that cannot close the tags which stand around it."""
    if isinstance(value, str):
        return value.translate(BRACKETS)
    return tuple(_plain(text) for text in value)


def _turned(question: Question, by: int) -> tuple[str, ...]:
    """The options of a question, turned, so that who always takes the same place is not always right."""
    if question.form != "choice":
        return ()
    by %= len(question.options)
    return question.options[by:] + question.options[:by]


def _same_span(said: str, answer: str) -> bool:
    first, second = _span(said), _span(answer)
    if first is None or second is None:
        return False
    shared = min(first[1], second[1]) - max(first[0], second[0])
    covered = max(first[1], second[1]) - min(first[0], second[0])
    return shared > 0 and shared / covered >= _MIN_OVERLAP


def _span(text: str) -> tuple[int, int] | None:
    times = [int(h or 0) * 3600 + int(m) * 60 + int(s) for h, m, s in _TIME.findall(text)]
    return (times[0], times[1]) if len(times) >= 2 and times[0] < times[1] else None


def _same_order(said: str, answer: str) -> bool:
    return re.findall(r"\(([a-h])\)", said.lower()) == re.findall(r"\(([a-h])\)", answer)


def _same_number(said: str, answer: str) -> bool:
    found = [word for word in words(said) if word.isdigit()]
    return found == [answer]


_BY_FORM = {"localisation": _same_span, "order": _same_order, "counting": _same_number}
