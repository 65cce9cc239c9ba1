from __future__ import annotations

from collections import Counter

import pytest

from longvila.curation.filters import blind_baselines, filter_questions
from longvila.records import Evidence, Question

DURATIONS = {"v": 100.0}


def question(number: int, answer: str = "dark", **changes: object) -> Question:
    start_s = float(number)
    given = {
        "question_id": f"q{number:04d}", "video_id": "v", "kind": "brightness",
        "question": "what is the overall lighting", "answer": answer, "options": ("dark", "medium", "bright"),
        "start_s": start_s, "stop_s": start_s + 4, "writer": "w", "split": "train",
        "evidence": (Evidence(start_s=start_s, stop_s=start_s + 4),),
    }  # fmt: skip
    return Question.model_validate(given | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": "very dark"}, "answer-form"),
        ({"answer": "Dark"}, "answer-form"),
        ({"answer": "red"}, "answer-unknown"),
        ({"question": "is it dark"}, "answer-leaks"),
        ({"video_id": "w"}, "no-video"),
        ({"start_s": 97.0, "stop_s": 101.0}, "window"),
        ({"start_s": 5.0, "stop_s": 5.0}, "window"),
        ({"evidence": ()}, "no-evidence"),
        ({"evidence": (Evidence(start_s=0.0, stop_s=4.5),)}, "evidence"),
        ({"evidence": (Evidence(start_s=2.0, stop_s=2.0),)}, "evidence"),
    ],
)
def test_what_is_wrong_is_rejected_with_its_reason(changes, reason):
    kept, rejections = filter_questions([question(0, **changes)], DURATIONS)
    assert kept == []
    assert [(r.item_id, r.reason) for r in rejections] == [("q0000", reason)]
    assert rejections[0].detail


def test_the_same_question_twice():
    _, rejections = filter_questions([question(0), question(0, question_id="again")], DURATIONS)
    assert [r.reason for r in rejections].count("duplicate") == 1


def test_answers_are_balanced_per_text():
    questions = [question(i, "dark") for i in range(40)]
    questions += [question(40 + i, "medium") for i in range(20)]
    questions += [question(60 + i, "bright") for i in range(5)]
    kept, rejections = filter_questions(questions, DURATIONS)
    assert Counter(q.answer for q in kept) == {"dark": 20, "medium": 20, "bright": 5}
    assert len(kept) + len(rejections) == len(questions)
    assert {r.reason for r in rejections} == {"balance"}
    assert filter_questions(questions, DURATIONS) == (kept, rejections)
    assert filter_questions(questions[::-1], DURATIONS)[0] == kept[::-1]


def test_a_text_with_one_answer_is_dropped():
    kept, _ = filter_questions([question(i) for i in range(10)], DURATIONS)
    assert kept == []


def test_heldout_answers_that_training_lacks_are_dropped():
    train = [question(i, "dark" if i % 2 else "medium") for i in range(20)]
    heldout = [
        question(20 + i, ("dark", "medium", "bright")[i % 3], split="heldout") for i in range(30)
    ]  # fmt: skip
    kept, _ = filter_questions(train + heldout, DURATIONS)
    assert Counter(q.answer for q in kept if q.split == "heldout") == {"dark": 10, "medium": 10}


def test_blind_baselines_are_what_a_guesser_gets():
    train = [question(i, "dark") for i in range(6)] + [question(10 + i, "bright") for i in range(4)]
    heldout = [
        question(20 + i, a, split="heldout") for i, a in enumerate(["dark", "bright", "bright", "medium"])
    ]
    found = {(b.kind, b.split): b for b in blind_baselines(train + heldout)}
    assert found["brightness", "train"].accuracy == pytest.approx(0.6)
    assert found["brightness", "heldout"].accuracy == pytest.approx(0.25)
    assert found["brightness", "heldout"].commonest == pytest.approx(0.5)
    assert (found["brightness", "heldout"].num_questions, found["brightness", "heldout"].num_answers) == (
        4,
        3,
    )
