from __future__ import annotations

import re

import numpy as np
import pytest
from pydantic import ValidationError

from longvila.config.language import QuestionConfig
from longvila.curation.questions import KINDS, windows, write_questions
from longvila.records import Caption
from tests.curation.pictures import grey, measure_pictures, scene, shots_at, split_picture, video_record

SKY = split_picture("blue", "green", axis=0, share=0.4)


def caption(start_s: float, stop_s: float) -> Caption:
    return Caption(
        caption_id="x", clip_id=f"clip-{start_s:g}", video_id="v", start_s=start_s, stop_s=stop_s, text="",
        captioner="c",
    )  # fmt: skip


def asked(pictures: list[np.ndarray], *, cuts_s: tuple[float, ...] = (), **config: object):
    duration_s = len(pictures) / 4
    return write_questions(
        video_record("v", duration_s=duration_s),
        measure_pictures(pictures),
        shots_at("v", duration_s, cuts_s),
        [caption(0.0, 2.0), caption(2.0, duration_s)],
        QuestionConfig.model_validate({"window_s": (), **config}),
    )


def test_answers_of_a_known_picture():
    found = {q.question: q.answer for q in asked([SKY] * 16)}
    assert found["what is the overall lighting"] == "dark"
    assert found["what is the main colour"] == "green"
    assert found["on which side is most blue"] == "top"
    assert found["on which side is most green"] == "bottom"
    assert found["how does the light change"] == "same"
    assert found["how strong is the motion"] == "still"
    assert found["what is the number of shots"] == "one"
    assert "when is it darkest" not in found


def test_answers_that_need_the_order():
    pictures = (
        [split_picture("white", "grey", axis=0)] * 8
        + [scene(4)] * 8
        + [split_picture("red", "black", axis=0)] * 8
    )
    found = {q.kind: q.answer for q in asked(pictures, cuts_s=(2.0, 4.0))}
    assert (found["change"], found["when_darkest"], found["when_lightest"]) == ("darker", "late", "early")
    assert found["count"] == "three"
    assert found["recurs"] == "no"


def test_start_and_end_colour_look_at_their_part_only():
    pictures = [split_picture("blue", "grey", axis=0, share=0.7)] * 8 + [
        split_picture("red", "grey", axis=0, share=0.7)
    ] * 8
    by_kind = {q.kind: q for q in asked(pictures, cuts_s=(2.0,))}
    assert (by_kind["start_colour"].answer, by_kind["end_colour"].answer) == ("blue", "red")
    evidence = by_kind["end_colour"].evidence[0]
    assert (evidence.start_s, evidence.stop_s, evidence.clip_id) == (3.0, 4.0, "clip-2")
    assert "main_colour" not in by_kind


def test_a_story_is_told_by_its_shots():
    blue, red = (
        split_picture("blue", "grey", axis=0, share=0.7),
        split_picture("red", "grey", axis=0, share=0.7),
    )
    cuts_s = (6.0, 12.0, 18.0)
    pictures = [blue] * 24 + [red] * 24 + [blue] * 48
    found = {q.kind: q.answer for q in asked(pictures, cuts_s=cuts_s)}
    assert found["synopsis"] == "blue"
    assert found["recurs"] == "yes"
    assert "synopsis" not in {q.kind for q in asked(pictures[:72], cuts_s=(6.0,))}


def test_nothing_is_asked_that_is_not_clear():
    assert "brightness" not in {q.kind for q in asked([grey(0.45)] * 16)}


def test_windows():
    config = QuestionConfig(window_s=(4.0, 8.0), stride_s=2.0)
    assert windows(10.0, config) == [(0, 4), (2, 6), (4, 8), (6, 10), (0, 8), (2, 10)]
    assert windows(3.0, config) == [(0.0, 3.0)]
    assert windows(10.0, QuestionConfig(window_s=())) == [(0.0, 10.0)]
    assert windows(8.0, QuestionConfig()) == [(0.0, 8.0)]


def test_every_question_keeps_the_form():
    pictures = [SKY] * 8 + [scene(2)] * 8 + [SKY] * 8 + [scene(3)] * 100
    questions = asked(pictures, cuts_s=(2.0, 4.0, 6.0), window_s=(4.0, 24.0), stride_s=1.0)
    assert len(questions) > 50
    for question in questions:
        assert re.fullmatch(r"[a-z ]+", question.question)
        assert question.answer in question.options == KINDS[question.kind].answers
        assert question.answer not in question.question.split()
        for evidence in question.evidence:
            assert question.start_s <= evidence.start_s < evidence.stop_s <= question.stop_s
    assert len({q.question_id for q in questions}) == len(questions)


def test_the_last_word_says_what_is_asked():
    """No two kinds end alike, so the word after which the answer stands tells them apart."""
    pictures = [SKY] * 8 + [scene(2)] * 8 + [SKY] * 8 + [scene(3)] * 100
    ends: dict[str, set[str]] = {}
    for question in asked(pictures, cuts_s=(2.0, 4.0, 6.0), window_s=(4.0, 24.0), stride_s=1.0):
        ends.setdefault(question.question.split()[-1], set()).add(question.kind)
    assert all(len(kinds) == 1 for kinds in ends.values()), ends


def test_only_the_kinds_that_are_wanted():
    assert {q.kind for q in asked([SKY] * 16, kinds=("motion", "brightness"))} == {"motion", "brightness"}
    with pytest.raises(ValidationError, match="should be 'brightness', 'main_colour'"):
        asked([SKY] * 16, kinds=("colour",))


def test_a_limit_per_video_is_kept_and_always_chooses_the_same():
    all_of_them = asked([SKY] * 40, window_s=(4.0,), stride_s=0.5)
    some = asked([SKY] * 40, window_s=(4.0,), stride_s=0.5, max_per_video=20)
    assert len(some) == 20
    assert [q for q in all_of_them if q in some] == some == asked(
        [SKY] * 40, window_s=(4.0,), stride_s=0.5, max_per_video=20
    )  # fmt: skip
