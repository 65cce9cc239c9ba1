"""Writing and checking as steps: resumed by video, counted, and paid for once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from longvila.curation.asking.checks import rejection_of
from longvila.curation.asking.steps import ASK_STEP, Told, write_with_model
from longvila.curation.filters import blind_baselines, filter_questions
from longvila.errors import ItemError, NetworkError
from longvila.records import Usage
from longvila.storage import StepResult, Workspace
from tests.curation.asking.scripted import (
    CRATES,
    Answer,
    ScriptedModel,
    captions,
    draft,
    honest,
    settings,
    video,
)

CHECKS: dict[str, Any] = {
    "check-blind": {"answer": "red"},
    "check-same": {"same": False},
    "check-answer": honest,
}


def told(name: str) -> Told:
    said = tuple(
        caption.model_copy(update={"video_id": name, "clip_id": f"{name}-{caption.clip_id}"})
        for caption in captions()
    )
    return Told(video_id=name, video=video().model_copy(update={"video_id": name}), captions=said)


def run(root: Path, scripted: ScriptedModel, names: str = "ab", **changes: Any) -> StepResult:
    return write_with_model(
        Workspace.open(root), [told(name) for name in names], settings(**changes), model=scripted
    )


def test_every_video_and_every_question_is_accounted_for(tmp_path: Path) -> None:
    items = [
        CRATES,
        CRATES | {"question": "What colour is clip 2?"},
        CRATES | {"question": "Which colour?", "answer": "red"},
    ]
    seen: list[str] = []

    def attribute(text: str, _: int) -> Answer:
        seen.append(text)
        return ItemError("blocked", "not this one") if len(seen) == 2 else {"questions": items}

    model = ScriptedModel({"attribute": attribute, **CHECKS})
    result = run(tmp_path, model, "abc")
    assert [(r.item_id, r.reason) for r in result.rejections] == [("b", "blocked")]
    assert {q.video_id for q in result.results} == {"a", "c"}
    assert len(result.results) == 6
    kept, rejections = filter_questions(result.results, dict.fromkeys("abc", 50.0))
    assert len(kept) + len(rejections) == 6
    assert sorted(r.reason for r in rejections) == ["not-grounded"] * 2 + ["speaks-of-captions"] * 2
    assert [question.answer for question in kept] == ["blue", "blue"]
    assert all(q.evidence[0].clip_id == f"{q.video_id}-clip1" for q in kept)
    (baseline,) = blind_baselines(kept)
    assert (baseline.guessed, baseline.num_questions) == (0.0, 2)


def test_what_is_done_is_not_asked_again_after_a_kill(tmp_path: Path) -> None:
    calls: list[int] = []

    def attribute(_: str, __: int) -> Answer:
        calls.append(1)
        return NetworkError("gone") if len(calls) == 2 else draft()

    model = ScriptedModel({"attribute": attribute, **CHECKS})
    with pytest.raises(NetworkError):
        run(tmp_path, model, "abc")
    result = run(tmp_path, model, "abc")
    assert len(calls) == 4
    assert [q.video_id for q in result.results] == ["a", "b", "c"]
    asked = len(model.asked)
    again = run(tmp_path, model, "abc")
    assert again.reused
    assert again.results == result.results
    assert len(model.asked) == asked
    more = run(tmp_path, model, "abcd")
    assert model.times("attribute") == 5
    assert more.results[:3] == result.results


def test_checks_are_resumed_by_video(tmp_path: Path) -> None:
    calls: list[int] = []

    def blind(_: str, __: int) -> Answer:
        calls.append(1)
        return NetworkError("gone") if len(calls) == 4 else {"answer": "red"}

    model = ScriptedModel({"attribute": draft(), **CHECKS, "check-blind": blind})
    with pytest.raises(NetworkError):
        run(tmp_path, model)
    run(tmp_path, model)
    assert model.times("attribute") == 2
    assert len(calls) == 3 + 1 + 3


def test_changed_checks_ask_for_no_new_questions(tmp_path: Path) -> None:
    model = ScriptedModel({"attribute": draft(), **CHECKS})
    run(tmp_path, model)
    result = run(tmp_path, model, checks={"blind_tries": 5})
    assert model.times("attribute") == 2
    assert model.times("check-blind") == 2 * 3 + 2 * 5
    assert {q.checks["blind"]["tries"] for q in result.results} == {5}
    run(tmp_path, model, per_request=2)
    assert model.times("attribute") == 4


def test_the_cost_is_that_of_all_requests(tmp_path: Path) -> None:
    model = ScriptedModel(
        {"attribute": {"questions": [CRATES, CRATES]}, "object": {"questions": []}, **CHECKS}
    )
    result = run(tmp_path, model, kinds=("attribute", "object"))
    total = sum((question.usage for question in result.results), Usage())
    assert total.cost_usd == pytest.approx(0.001 * len(model.asked))
    assert total.tokens_in == sum(len(text.split()) for _, text, _ in model.asked)


def test_a_model_of_its_own_checks(tmp_path: Path) -> None:
    writer, checker = ScriptedModel({"attribute": draft()}), ScriptedModel(CHECKS)
    result = write_with_model(
        Workspace.open(tmp_path), [told("a")], settings(), model=writer, checker=checker
    )
    assert [rejection_of(q) for q in result.results] == [None]
    assert {what for what, _, _ in writer.asked} == {"attribute"}
    assert {what for what, _, _ in checker.asked} == {"check-blind", "check-answer", "check-same"}


@pytest.mark.parametrize(
    ("answers", "reason", "said"),
    [
        (
            {"attribute": ItemError("bad-json", "cut off")},
            "bad-json",
            "all 1 requests failed; the first: cut off",
        ),
        ({"attribute": {"questions": []}}, "no-questions", "1 requests gave no question"),
    ],
)
def test_a_video_without_questions_says_why(
    tmp_path: Path, answers: dict[str, Any], reason: str, said: str
) -> None:
    result = run(tmp_path, ScriptedModel(answers), "a")
    assert result.results == []
    assert [(r.item_id, r.reason, r.step) for r in result.rejections] == [("a", reason, "questions")]
    assert said in result.rejections[0].detail


def test_a_video_of_which_nothing_is_said(tmp_path: Path) -> None:
    silent = Told(video_id="a", video=video(), captions=captions(("", " ")))
    result = write_with_model(Workspace.open(tmp_path), [silent], settings(), model=ScriptedModel({}))
    assert [r.reason for r in result.rejections] == ["no-captions"]


def test_many_videos_and_requests_at_once_give_the_same(tmp_path: Path) -> None:
    answers = {"attribute": draft(), "object": {"questions": [CRATES]}, "spatial": "no JSON", **CHECKS}
    endpoint = {"base_url": "http://127.0.0.1:1/v1", "model": "scripted"}
    one, many = (
        run(
            tmp_path / str(threads),
            ScriptedModel(answers),
            "abcdefgh",
            kinds=("attribute", "object", "spatial"),
            model=endpoint | {"requests_at_once": threads},
        )
        for threads in (1, 16)
    )
    assert many.results == one.results
    assert len(one.results) == 16


def test_sheets_keep_what_the_model_said(tmp_path: Path) -> None:
    run(tmp_path, ScriptedModel({"attribute": draft(evidence=[99]), **CHECKS}), "a")
    assert list((tmp_path).rglob(f"manifests/{ASK_STEP}/*.parquet"))
