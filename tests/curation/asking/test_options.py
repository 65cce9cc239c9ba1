from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvila.curation.asking.compose import CANNOT_TELL
from longvila.curation.asking.options import (
    arrange,
    form_of,
    option_reports,
    options_of,
    options_problem,
)
from longvila.records import Evidence, Question, content_id


def choice(
    number: int, options: tuple[str, ...], *, kind: str = "object", split: str = "train", answer: str = ""
) -> Question:
    return Question.model_validate(
        {
            "question_id": content_id(number, kind, split),
            "video_id": "v",
            "kind": kind,
            "question": "which",
            "answer": answer or options[0],
            "options": options,
            "form": "choice",
            "start_s": 0,
            "stop_s": 4,
            "writer": "w",
            "split": split,
            "evidence": (Evidence(start_s=0, stop_s=4),),
        }
    )


FOUR = ("oak", "elm", "ash", "fir")
groups = st.lists(
    st.tuples(
        st.sampled_from(["object", "action", "order"]),
        st.integers(2, 6),
        st.sampled_from(["train", "heldout"]),
    ),
    max_size=60,
)


@given(groups)
def test_right_options_stand_in_every_place_equally_often(drawn: list[tuple[str, int, str]]) -> None:
    questions = [
        choice(i, tuple(f"{word}{i}" for word in "abcdef"[:count]), kind=kind, split=split)
        for i, (kind, count, split) in enumerate(drawn)
    ]
    arranged = arrange(questions)
    assert [q.question_id for q in arranged] == [q.question_id for q in questions]
    assert [sorted(q.options) for q in arranged] == [sorted(q.options) for q in questions]
    assert arrange(questions[::-1])[::-1] == arranged == arrange(arranged)
    for split in ("train", "heldout"):
        for count in range(2, 7):
            for kind in ("object", "action", "order", None):
                places = Counter(
                    q.options.index(q.answer)
                    for q in arranged
                    if q.split == split and len(q.options) == count and kind in (q.kind, None)
                )
                counts = [places[place] for place in range(count)]
                assert max(counts) - min(counts) <= 1


def test_what_cannot_be_told_is_right_as_often_as_any_option() -> None:
    unknown = [choice(i, (CANNOT_TELL, "left", "right", "up"), kind="unanswerable") for i in range(8)]
    others = [choice(100 + i, FOUR) for i in range(60)]
    opened = [choice(200, FOUR).model_copy(update={"form": "open", "options": ()})]
    arranged = arrange([*unknown, *others, *opened])
    offered = [q for q in arranged if CANNOT_TELL in q.options]
    assert len(offered) == 4 * len(unknown)
    assert sum(q.answer == CANNOT_TELL for q in offered) == len(unknown)
    assert all(q.answer in q.options and len(set(q.options)) == 4 for q in arranged if q.form == "choice")
    assert arranged[-1] == opened[0]
    assert arrange(arranged) == arranged


def test_forms_are_shared_evenly_and_always_alike() -> None:
    ids = [content_id(i) for i in range(400)]
    forms = Counter(form_of(one, ("open", "choice")) for one in ids)
    assert min(forms.values()) > 150
    assert {form_of(one, ("choice",)) for one in ids} == {"choice"}


@given(st.lists(st.text(max_size=8), max_size=8), st.integers(2, 8), st.text(max_size=4))
def test_options_hold_the_answer_once(wrong: list[str], count: int, seed: str) -> None:
    options = options_of("the right one", wrong, num_options=count, seed=seed)
    assert options.count("the right one") == 1
    assert len(options) <= count
    assert options == options_of("the right one", wrong, num_options=count, seed=seed)


@pytest.mark.parametrize(
    ("answer", "options", "reason"),
    [
        ("oak", FOUR, None),
        ("oak", ("elm", "ash"), "answer-unknown"),
        ("oak", ("oak",), "options-few"),
        ("an old oak", ("an old oak", "an old elm"), "options-few"),
        ("yes", ("yes", "no"), None),
        ("oak", ("oak", "the Ash", "ash"), "options-same"),
        ("oak", ("oak", "ash", "None of the above."), "options-same"),
        (
            "a very old and very tall oak tree",
            ("a very old and very tall oak tree", "elm", "ash"),
            "options-uneven",
        ),
        ("oak", ("oak", "a very old and very tall elm tree", "another ash tree"), "options-uneven"),
        ("it is two", ("it is two", "it is ten", "it is six"), None),
    ],
)
def test_options_that_give_the_answer_away(answer: str, options: tuple[str, ...], reason: str | None) -> None:
    found = options_problem(answer, options)
    assert (found and found[0]) == reason


def test_the_report_says_where_right_options_stand() -> None:
    questions = [choice(i, FOUR) for i in range(8)] + [choice(9, ("long one", "b", "c"), split="heldout")]
    heldout, train = option_reports(arrange(questions))
    assert train.positions == train.expected == {"A": 2, "B": 2, "C": 2, "D": 2}
    assert (train.num_questions, train.by_chance, train.longest_is_right) == (8, 0.25, 0.25)
    assert (heldout.longest_is_right, heldout.by_chance) == (1.0, pytest.approx(1 / 3))
