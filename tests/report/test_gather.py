import numpy as np

from longvila.curation.report import SheetPicture, funnel_row_of
from longvila.curation.scan_file import FrameStrip
from longvila.evaluation.results import QaExample
from longvila.media.jpeg import FrameBlob
from longvila.records import Evidence, Question, Rejection
from longvila.report.gather import contact_sheet, funnel_step, question_examples
from tests.report.example import png


def question(number: int, kind: str) -> Question:
    return Question(
        question_id=f"q{number:03d}", video_id="v", kind=kind, question="what", answer="red",
        start_s=0, stop_s=8, evidence=(Evidence(start_s=2, stop_s=3),), writer="w", split="heldout",
    )  # fmt: skip


def test_a_funnel_step_names_each_reason_with_an_example():
    rejections = [
        Rejection(item_id=str(i), step="validate", reason=reason, detail=f"detail {i}", source="a.mp4")
        for i, reason in enumerate(["short", "short", "truncated"])
    ]
    row = funnel_row_of("validate", entered=9, results=30, rejections=rejections)
    step = funnel_step(row, makes="shots", rejections=rejections)
    assert step.adds_up
    assert (step.taken_in, step.kept, step.rejected, step.made) == (9, 6, 3, "30 shots")
    assert {(r.reason, r.count, r.example) for r in step.reasons} == {
        ("short", 2, "a.mp4: detail 0"),
        ("truncated", 1, "a.mp4: detail 2"),
    }


def test_a_contact_sheet_keeps_times_and_captions():
    picture = SheetPicture(video_id="v", start_s=1, stop_s=5, time_s=3, jpeg=png(), text="A red scene.")
    sheet = contact_sheet("Film", [picture, picture], attribution="CC BY")
    assert [entry.text for entry in sheet.entries] == ["A red scene."] * 2
    assert sheet.entries[0].picture.data == png()


def test_every_kind_is_shown_before_any_comes_twice():
    questions = [question(i, kind) for i, kind in enumerate("aaaabbc")]
    kinds = [example.kind for example in question_examples(questions, titles={"v": "Film"}, limit=5)]
    assert kinds == ["a", "b", "c", "a", "b"]
    assert question_examples(questions, titles={"v": "Film"})[0].video == "Film"
    assert question_examples([], titles={}) == ()


def test_what_the_model_said_and_pictures_of_the_evidence_are_shown():
    questions = [question(i, "a") for i in range(3)]
    answered = [
        QaExample(
            question_id="q001",
            video_id="v",
            kind="a",
            question="what",
            answer="red",
            said="blue",
            said_blind="",
        )
    ]
    blob = FrameBlob(png() * 10, np.arange(11, dtype=np.int64) * len(png()))
    strip = FrameStrip(blob, np.arange(10) / 4 + 1.0)  # evidence is from 2 s to 3 s: four frames
    (example,) = question_examples(questions, titles={}, strips={"v": strip}, answered=answered)
    assert example.predicted == "blue"
    assert [picture.alt for picture in example.pictures] == [f"frame at {t} s" for t in (2.0, 2.2, 2.5, 2.8)]
    assert example.pictures[0].data == png()
