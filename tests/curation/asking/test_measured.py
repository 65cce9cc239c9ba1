"""What is asked of whole clips is true of pictures whose truth is known."""

from __future__ import annotations

import re
from typing import get_args

import numpy as np
import pytest

from longvila.config.language import ClipKind, QuestionConfig
from longvila.curation.asking.compose import CANNOT_TELL
from longvila.curation.asking.measured import WRITERS, texts_of
from longvila.curation.filters import filter_questions
from longvila.curation.questions import MeasuredWriter
from longvila.records import Caption, Question
from tests.curation.pictures import grey, measure_pictures, shots_at, split_picture, video_record

CLIP_S = 4.0
COLOURS = ("blue", "grey", "red", "grey", "green")
TEXTS = (
    {},
    {"text": ["NORTH COAST"]},
    {},
    {"text": [{"text": "EXIT"}, {"text": "WAY OUT"}]},
    {"text": "THE END"},
)


def captions(facts: tuple[dict, ...] = TEXTS) -> list[Caption]:
    return [
        Caption(
            caption_id=f"k{i}",
            clip_id=f"clip{i}",
            video_id="v",
            start_s=i * CLIP_S,
            stop_s=(i + 1) * CLIP_S,
            text=f"a clip of {colour}",
            facts=facts[i],
            captioner="c",
        )
        for i, colour in enumerate(COLOURS)
    ]


def written(colours: tuple[str, ...] = COLOURS, **config: object) -> list[Question]:
    pictures: list[np.ndarray] = []
    for colour in colours:
        picture = grey(0.9) if colour == "white" else split_picture(colour, "black", axis=0, share=0.8)
        pictures += [picture] * int(4 * CLIP_S)
    cuts_s = tuple(CLIP_S * i for i in range(1, len(colours)))
    duration_s = CLIP_S * len(colours)
    given = QuestionConfig.model_validate({"kinds": tuple(WRITERS)} | config)
    writer = MeasuredWriter(measure_pictures(pictures), shots_at("v", duration_s, cuts_s), given)
    return writer.write(video_record("v", duration_s=duration_s), captions())


def answers(questions: list[Question]) -> dict[str, str]:
    return {question.question: question.answer for question in questions}


def test_answers_of_known_clips() -> None:
    found = answers(written())
    assert found["What is the main colour directly after the part that is mostly blue?"] == "grey"
    assert found["How many separate parts of the video are mostly grey?"] == "2"
    assert found["When is the picture mostly red?"] == "from 0:08 to 0:12"
    assert found["Which way does the camera go in the part that is mostly red?"] == "nowhere"
    assert found["How much moves in the part that is mostly red?"] == "almost nothing moves"
    assert found["What is written in the picture at 0:06?"] == "NORTH COAST"
    assert found["What is written in the picture at 0:18?"] == "THE END"
    assert not any("0:14" in question for question in found), "two texts: which is meant?"
    lumas = {"blue": 0.28, "red": 0.24, "green": 0.37, "grey": 0.40}  # as painted, about
    spans = {"from 0:04 to 0:08": "grey", "from 0:12 to 0:16": "grey"}
    compared = [q for q in written() if q.kind == "cross_clip"]
    assert len(compared) >= 3
    for question in compared:
        first, second = re.findall(r"mostly (\w+)|part (from 0:\d\d to 0:\d\d)", question.question)
        step = lumas[second[0] or spans[second[1]]] - lumas[first[0] or spans[first[1]]]
        expected = "about as light" if abs(step) < 0.02 else "brighter" if step > 0 else "darker"
        assert question.answer == expected, question
        assert len({span.clip_id for span in question.evidence}) == 2
    (order,) = [q for q in written() if q.kind == "order"]
    assert [e.clip_id for e in order.evidence] == ["clip0", "clip2", "clip4"]
    (unknown,) = [q for q in written() if q.kind == "unanswerable"]
    assert unknown.answer == CANNOT_TELL
    assert not any(colour in unknown.question for colour in (*COLOURS, "black"))


def test_nothing_is_asked_of_clips_that_cannot_be_told_apart() -> None:
    alike = written(("grey",) * 5)
    assert {q.kind for q in alike} == {"needle", "cross_clip", "unanswerable", "ocr"}
    assert {q.answer for q in alike if q.kind == "cross_clip"} == {"about as light"}
    assert all("from 0:" in q.question for q in alike if q.kind in ("needle", "cross_clip"))
    assert written(("grey", "blue")) == []


@pytest.mark.parametrize("form", ["open", "choice"])
def test_every_question_passes_the_filter_with_its_evidence(form: str) -> None:
    questions = written(forms=(form,))
    assert {question.kind for question in questions} == set(WRITERS)
    kept, rejections = filter_questions(questions, {"v": 20.0})
    assert {r.reason for r in rejections} <= {"balance", "options-few"}
    assert {q.kind for q in kept} >= {"localisation", "order", "counting", "unanswerable"}
    for question in kept:
        assert question.evidence
        assert all(span.clip_id for span in question.evidence)
        if form == "choice":
            assert question.answer in question.options
            assert 2 <= len(question.options) <= 4


def test_only_what_is_wanted_and_always_the_same() -> None:
    assert {q.kind for q in written(kinds=("counting", "brightness"))} == {"counting", "brightness"}
    assert written() == written()
    assert len(written(max_per_video=3)) == 3


def test_a_description_of_the_whole_video() -> None:
    (summary,) = [q for q in written(kinds=("counting",), summaries=True) if q.kind == "summary"]
    assert summary.answer.startswith("From 0:00 to 0:04: a clip of blue From 0:04 to 0:08: a clip of grey")
    kept, rejections = filter_questions([summary], {"v": 20.0})
    assert (len(kept), rejections) == (1, [])


@pytest.mark.parametrize(
    ("facts", "texts"),
    [
        ({}, ()),
        ({"text": None}, ()),
        ({"text": 7}, ()),
        ({"text": ["a", "", 3, "a"]}, ("a",)),
        ({"text": " A\nB "}, ("A B",)),
        ({"text": [{"text": "x"}, {"no": 1}]}, ("x",)),
    ],
)
def test_texts_in_facts(facts: dict, texts: tuple[str, ...]) -> None:
    assert texts_of(captions((facts,) * 5)[0]) == texts


def test_the_settings_name_what_is_written() -> None:
    assert set(get_args(ClipKind)) == set(WRITERS)
