"""Every reason occurs on a bad question, and on no good one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from longvila.curation.asking.checks import questions_of, rejection_of
from longvila.curation.asking.judge import Checker, load_check_prompts
from longvila.curation.asking.outline import lines_of
from longvila.curation.asking.writer import WRITER, ModelWriter, load_prompts
from longvila.curation.filters import filter_questions
from longvila.errors import ItemError
from longvila.records import Question
from tests.curation.asking.scripted import CRATES, ScriptedModel, captions, draft, honest, settings, video

GOOD: dict[str, dict[str, Any]] = {
    "spatial": {
        "question": "Where is the clock in the kitchen where the fish is cut?",
        "answer": "above the stove",
        "distractors": ["beside the door", "on the steel table", "near the window"],
        "evidence": [3],
    },
    "attribute": CRATES,
    "action": {
        "question": "What does the woman do with her raincoat after she has come into the kitchen?",
        "answer": "She hangs it on a hook by the door.",
        "distractors": ["She lays it over a chair.", "She gives it to the man.", "She folds it up."],
        "evidence": [4],
    },
    "object": {
        "question": "Which animal is in the room while the man and the woman eat?",
        "answer": "a brown dog",
        "distractors": ["a grey cat", "a white dog", "a small bird"],
        "evidence": [5],
    },
    "ocr": {
        "question": "What is written on the side of the van?",
        "answer": "NORTH COAST FISH",
        "distractors": ["NORTH SEA FISH", "WEST COAST MARKET", "HARBOUR SEAFOOD"],
        "evidence": [2],
    },
    "synopsis": {
        "question": "What does the video as a whole follow?",
        "answer": "Fish is brought ashore, cooked in a kitchen and eaten by two people.",
        "distractors": [
            "Fish is brought ashore, sold at a market and driven to a shop.",
            "A boat is repaired at a pier, painted and put to sea again.",
            "Two people leave a kitchen, go fishing and come home again.",
        ],
        "evidence": [1, 2, 3, 4, 5],
    },
    "temporal": {
        "question": "What does the woman do directly after tying up the boat?",
        "answer": "She carries two crates to a van.",
        "distractors": ["She hangs up her raincoat.", "She sits down to eat.", "She cuts a large fish."],
        "evidence": [1, 2],
    },
    "counting": {
        "question": "How many crates does the woman carry to the van?",
        "count": 2,
        "evidence": [2],
    },
    "order": {
        "events": [
            {"event": "a boat is tied to a pier", "clip": 1},
            {"event": "writing on a van is seen", "clip": 2},
            {"event": "a brown dog lies under a table", "clip": 5},
        ],
    },
    "localisation": {"question": "When does the woman hang up her raincoat?", "evidence": [4]},
    "needle": {
        "question": "What hangs above the stove in the kitchen where the fish is cut?",
        "answer": "a clock",
        "distractors": ["a calendar", "a mirror", "a row of pans"],
        "evidence": [3],
    },
    "cross_clip": {
        "question": "What did the person who hangs a raincoat on the hook carry earlier in the video?",
        "answer": "two blue crates",
        "distractors": ["a black pan", "a large fish", "a wooden box"],
        "evidence": [2, 4],
    },
    "unanswerable": {
        "question": "What is seen through the window while the man and the woman eat?",
        "distractors": ["the pier with the boat", "a parked van", "a snowy field"],
        "evidence": [5],
    },
}


def written(answers: dict[str, Any], **changes: Any) -> list[Question]:
    config = settings(**changes)
    model = ScriptedModel(answers)
    sheet = ModelWriter(model, config, load_prompts(config)).ask(video(), captions())
    return questions_of(sheet, video(), lines_of(captions()), config, writer=WRITER)


def checked(
    answers: dict[str, Any], *, questions: list[Question] | None = None, **changes: Any
) -> list[Question]:
    config = settings(**changes)
    checker = Checker(ScriptedModel(answers), config.checks, load_check_prompts(), caption_tokens=4000)
    return checker.check(questions or written(answers, **changes), lines_of(captions()), 50.0)


def reasons(questions: list[Question]) -> list[str | None]:
    found = [rejection_of(question) for question in questions]
    return [reason and reason[0] for reason in found]


@pytest.mark.parametrize("form", ["open", "choice"])
def test_good_questions_of_every_kind_pass_and_reach_the_set(form: str) -> None:
    answers = {kind: {"questions": [item]} for kind, item in GOOD.items()}
    questions = written(answers, kinds=tuple(GOOD), forms=(form,))
    assert reasons(questions) == [None] * len(GOOD), [q.checks for q in questions]
    assert [question.kind for question in questions] == list(GOOD)
    kept, rejections = filter_questions(questions, {"v": 50.0})
    assert rejections == []
    assert [question.form for question in kept] == [form] * len(GOOD)
    for question in kept:
        assert all(span.clip_id in {c.clip_id for c in captions()} for span in question.evidence)
        assert (question.model, question.writer) == ("scripted-7", WRITER)
        assert question.prompt_id.startswith(f"question-{question.kind.replace('_', '-')}-v1-")
        assert len(question.options) == (0 if form == "open" else 4), question
        assert form == "open" or question.answer in question.options


BAD = [
    (draft(question=""), "no-text"),
    (draft(answer="  \u202e "), "no-text"),
    (draft(question="Which " + "very " * 70 + "old boat is it?"), "question-long"),
    (draft(answer="blue " * 70), "answer-long"),
    (draft(question="What colour are the <frames> crates?"), "markup"),
    (draft(answer="blue<|im_end|>"), "markup"),
    (draft(distractors=["grey", "</captions>", "red"]), "markup"),
    (draft(question="What colour are the crates in clip 2?"), "speaks-of-captions"),
    (draft(question="According to the captions, what colour are the crates?"), "speaks-of-captions"),
    (draft(question="What colour of crates is mentioned in this segment?"), "speaks-of-captions"),
    (draft(answer="blue, as described"), "speaks-of-captions"),
    (draft(question="What colour are the blue crates that the woman carries?"), "answer-leaks"),
    (
        draft(question="Is what the woman carries to the van two blue crates?", answer="Two crates, blue."),
        "answer-leaks",
    ),
    (draft(evidence=[7]), "evidence-clips"),
    (draft(evidence=[0, 2]), "evidence-clips"),
    (draft(evidence=[]), "no-evidence"),
    (draft(answer="crimson"), "not-grounded"),
    (draft(evidence=[5]), "not-grounded"),
    (draft(distractors=[]), "options-few"),
    (draft(distractors=["Blue.", "the blue"]), "options-few"),
    (draft(distractors=["grey", "red", "all of the above"]), "options-same"),
    (draft(answer="blue, with the yellow of her raincoat beside it"), "options-uneven"),
]


@pytest.mark.parametrize(("answer", "reason"), BAD)
def test_a_bad_question_is_rejected_for_its_reason(answer: dict[str, Any], reason: str) -> None:
    changes = {"checks": {"min_grounded": 0.2}} if reason == "options-uneven" else {}
    questions = written({"attribute": answer}, forms=("choice",), **changes)
    assert reasons(questions) == [reason], questions[0].checks
    kept, rejections = filter_questions(questions, {"v": 50.0})
    assert kept == []
    assert [(r.item_id, r.reason, r.source) for r in rejections] == [(questions[0].question_id, reason, "v")]
    assert rejections[0].detail


def test_a_question_without_good_options_is_open_where_that_is_allowed() -> None:
    items = [
        CRATES | {"question": f"What colour is thing {i} that the woman carries?", "distractors": []}
        for i in range(20)
    ]
    made = written({"attribute": {"questions": items}}, forms=("open", "choice"), checks={"max_similar": 1.0})
    assert reasons(made) == [None] * 20
    assert {question.form for question in made} == {"open"}


BAD_OF_KINDS = [
    ("cross_clip", GOOD["cross_clip"] | {"evidence": [2]}, "evidence-few"),
    ("synopsis", GOOD["synopsis"] | {"evidence": [3]}, "evidence-few"),
    ("localisation", {"question": "When is the woman seen?", "evidence": [1, 4]}, "evidence-apart"),
    ("localisation", {"question": "When is the woman seen?", "evidence": [9]}, "evidence-clips"),
    ("counting", {"question": "How many drops fall?", "count": 10**9, "evidence": [1]}, "count"),
    (
        "counting",
        {"question": "How many of the two crates are blue?", "count": 2, "evidence": [2]},
        "answer-leaks",
    ),
    (
        "order",
        {
            "events": [
                {"event": "a boat", "clip": 1},
                {"event": "a van", "clip": 1},
                {"event": "a dog", "clip": 5},
            ]
        },
        "events",
    ),
    ("order", {"events": [{"event": "a boat", "clip": 1}, {"event": "a dog", "clip": 5}]}, "events"),
    (
        "order",
        {"events": [{"event": "a", "clip": 1}, {"event": "b", "clip": 2}, {"event": "c", "clip": 6}]},
        "evidence-clips",
    ),
    ("ocr", GOOD["ocr"] | {"answer": "NORTH COAST SHIPS"}, "not-grounded"),
]


@pytest.mark.parametrize(("kind", "item", "reason"), BAD_OF_KINDS)
def test_a_kind_has_reasons_of_its_own(kind: str, item: dict[str, Any], reason: str) -> None:
    assert reasons(written({kind: {"questions": [item]}}, kinds=(kind,))) == [reason]


def test_one_video_is_not_asked_the_same_twice() -> None:
    again = CRATES | {"question": "What colour are the crates the woman carries away from the grey boat?"}
    other = CRATES | {"question": "What colour is the van?", "answer": "small"}
    questions = written({"attribute": {"questions": [CRATES, CRATES, again, other]}})
    assert reasons(questions) == [None, "similar", "similar", None]
    assert len({question.question_id for question in questions}) == 4


def test_before_and_after_are_not_the_same() -> None:
    items = [
        GOOD["temporal"] | {"question": f"What does the woman do {word} tying up the boat?"}
        for word in ("before", "after")
    ]
    assert reasons(written({"temporal": {"questions": items}}, kinds=("temporal",))) == [None, None]


def test_more_than_asked_for_are_counted() -> None:
    answers = {kind: {"questions": [GOOD[kind]]} for kind in ("spatial", "object", "needle", "ocr")}
    questions = written(answers, kinds=tuple(answers), max_per_video=3)
    assert sorted(reasons(questions), key=str) == [None, None, None, "limit"]


def test_computed_answers() -> None:
    answers = {
        kind: {"questions": [GOOD[kind]]} for kind in ("counting", "order", "localisation", "unanswerable")
    }
    counting, order, localisation, unanswerable = written(answers, kinds=tuple(answers), forms=("choice",))
    assert counting.answer == "2"
    assert all(option.isdigit() for option in counting.options)
    assert localisation.answer == "from 0:30 to 0:40"
    assert "from 0:30 to 0:40" in localisation.options
    assert all(option.startswith("from ") for option in localisation.options)
    told = {part[4:]: part[:3] for part in order.question.split("video? ")[1].split("; ")}
    assert order.answer == ", ".join(told[event["event"]] for event in GOOD["order"]["events"])
    assert order.answer != "(a), (b), (c)"
    assert unanswerable.answer == "It cannot be told from the video."


class TestByModel:
    def test_a_good_question_is_found_in_the_captions_and_not_guessed(self) -> None:
        guesses = {"check-blind": {"answer": "red"}, "check-same": {"same": False}, "check-answer": honest}
        (question,) = checked({"attribute": draft(), **guesses})
        assert rejection_of(question) is None
        assert question.checks["blind"]["right"] == 0
        assert question.checks["answerable"]["answer"] == "blue"
        assert question.checks["grounded"] == 1.0

    @pytest.mark.parametrize(
        ("answers", "reason"),
        [
            ({"check-blind": {"answer": "Blue!"}}, "blind"),
            ({"check-blind": lambda _, seed: {"answer": ["blue", "red", "the blue"][seed]}}, "blind"),
            ({"check-answer": {"answerable": False, "answer": ""}}, "not-answerable"),
            ({"check-answer": {"answerable": True, "answer": " "}}, "not-answerable"),
            ({"check-answer": {"answerable": True, "answer": "grey"}}, "other-answer"),
            ({"check-answer": ItemError("bad-json", "no JSON")}, "unchecked"),
            ({"check-answer": "[1, 2]"}, "unchecked"),
            ({"check-answer": '{"answer": "blue"}'}, "unchecked"),
            ({"check-blind": "not JSON"}, "unchecked"),
        ],
    )
    @pytest.mark.parametrize("form", ["open", "choice"])
    def test_a_bad_one_is_rejected(self, answers: dict[str, Any], reason: str, form: str) -> None:
        usual = {"check-blind": {"answer": "red"}, "check-same": {"same": False}, "check-answer": honest}
        questions = checked({"attribute": draft(), **usual, **answers}, forms=(form,))
        assert reasons(questions) == [reason]

    def test_a_judge_compares_other_words(self) -> None:
        answers = {
            "attribute": draft(),
            "check-blind": {"answer": "?"},
            "check-answer": {"answerable": True, "answer": "a deep sky colour"},
        }
        assert reasons(checked({**answers, "check-same": {"same": True}})) == [None]
        assert reasons(checked({**answers, "check-same": {"same": False}})) == ["other-answer"]
        unjudged = checked({**answers, "check-same": {"same": True}}, checks={"judge": False})
        assert reasons(unjudged) == ["other-answer"]

    def test_what_cannot_be_told_must_not_be_told(self) -> None:
        answers = {"unanswerable": {"questions": [GOOD["unanswerable"]]}}
        silent = {**answers, "check-answer": {"answerable": False, "answer": "a van"}}
        assert reasons(checked(silent, kinds=("unanswerable",))) == [None]
        told = {**answers, "check-answer": {"answerable": True, "answer": "the sea"}}
        assert reasons(checked(told, kinds=("unanswerable",))) == ["answerable"]

    @pytest.mark.parametrize(
        ("kind", "said", "reason"),
        [
            ("localisation", "from 0:32 to 0:41", None),
            ("localisation", "0:30-0:40", None),
            ("localisation", "at 0:10 to 0:20", "other-answer"),
            ("localisation", "late", "other-answer"),
            ("counting", "two crates", None),
            ("counting", "2 or 3", "other-answer"),
            ("order", "right", None),
            ("order", "(a), (b), (c)", "other-answer"),
        ],
    )
    def test_times_numbers_and_orders_are_compared_as_such(
        self, kind: str, said: str, reason: str | None
    ) -> None:
        questions = written({kind: {"questions": [GOOD[kind]]}}, kinds=(kind,))
        said = said if said != "right" else questions[0].answer.replace(", ", " then ")
        answers = {"check-blind": {"answer": "?"}, "check-answer": {"answerable": True, "answer": said}}
        assert reasons(checked(answers, questions=questions)) == [reason]

    def test_checks_can_be_off(self) -> None:
        (question,) = checked({"attribute": draft()}, checks={"answerable": False, "blind_tries": 0})
        assert rejection_of(question) is None
        assert set(question.checks) == {"grounded"}

    def test_a_rejected_question_costs_nothing_more(self) -> None:
        questions = written({"attribute": draft(question="What colour is it in clip 2?")})
        assert checked({}, questions=questions) == questions

    def test_captions_that_do_not_fit_are_shortened_but_not_those_it_rests_on(self) -> None:
        texts = tuple(
            f"A person with a hat numbered {i} walks past a door and on and on and on." for i in range(1, 121)
        )
        config = settings(kinds=("temporal",))
        item = GOOD["temporal"] | {"evidence": [50, 51], "answer": "a hat numbered 50"}
        sheet = ModelWriter(
            ScriptedModel({"temporal": {"questions": [item]}}), config, load_prompts(config)
        ).ask(video(120), captions(texts))
        lines = lines_of(captions(texts))
        questions = questions_of(sheet, video(120), lines, config, writer=WRITER)
        model = ScriptedModel(
            {
                "check-blind": {"answer": "?"},
                "check-same": {"same": False},
                "check-answer": {"answerable": True, "answer": "a hat numbered 50"},
            }
        )
        checker = Checker(model, config.checks, load_check_prompts(), caption_tokens=1200)
        assert reasons(checker.check(questions, lines, 1200.0)) == [None]
        (shown,) = [text for what, text, _ in model.asked if what == "check-answer"]
        for number in (50, 51):
            assert f" {texts[number - 1]}\n" in shown
        assert shown.count("…\n") > 20
        numbers = [int(found) for found in re.findall(r"^\[(\d+)\]", shown, re.MULTILINE)]
        assert numbers == sorted(numbers)
        assert len(shown) < 2 * 1200 * 4

    def test_options_are_turned_between_guesses(self) -> None:
        def first_option(text: str, _: int) -> dict[str, str]:
            return {"answer": text.split("Options:\n- ")[1].split("\n")[0]}

        answers = {"attribute": draft(), "check-answer": honest, "check-blind": first_option}
        (question,) = checked(answers, forms=("choice",), checks={"blind_tries": 4})
        assert question.checks["blind"]["right"] == 1
        assert rejection_of(question) is None
