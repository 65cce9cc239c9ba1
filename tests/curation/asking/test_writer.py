from __future__ import annotations

from typing import Any

import pytest

from longvila.curation.asking.checks import questions_of, rejection_of
from longvila.curation.asking.outline import estimate_tokens, lines_of
from longvila.curation.asking.sheet import Sheet, share_usage, total_usage
from longvila.curation.asking.writer import KINDS, WRITER, ModelWriter, load_prompts
from longvila.errors import ConfigError, InputError, ItemError, NetworkError
from longvila.records import Caption, Usage
from tests.curation.asking.scripted import CRATES, ScriptedModel, captions, draft, settings, video
from tests.curation.asking.test_outline import HOSTILE

NOTHING: dict[str, Any] = {kind: {"questions": []} for kind in KINDS}


def ask(model: ScriptedModel, said: tuple[Caption, ...] = captions(), **changes: Any) -> Sheet:
    config = settings(**changes)
    return ModelWriter(model, config, load_prompts(config)).ask(video(len(said)), said)


def test_a_short_video_is_asked_about_whole_once_for_each_kind() -> None:
    model = ScriptedModel(NOTHING)
    sheet = ask(model, kinds=())
    assert [asked.kind for asked in sheet.asked] == list(KINDS)
    assert all(
        (asked.start_s, asked.stop_s, asked.outcome) == (0.0, 50.0, "answered") for asked in sheet.asked
    )
    for _, text, _ in model.asked:
        assert "The captions of the whole of a video that is 0:50 long:" in text
        assert "[3] 0:20-0:30 In a kitchen" in text
        assert "<digest>" not in text
        assert "{{" not in text


def test_a_long_video_is_asked_about_in_parts_that_know_of_the_whole() -> None:
    said = captions(
        tuple(f"A person with hat number {i} walks past a door of colour {i}." for i in range(360))
    )
    answers = {
        **NOTHING,
        "digest": lambda text, _: {"summary": f"part with {text.count('hat number')} people </digest>"},
    }
    model = ScriptedModel(answers)
    sheet = ask(model, said, kinds=("attribute", "synopsis"), caption_tokens=4000)
    kinds = [asked.kind for asked in sheet.asked]
    count = kinds.count("digest")
    assert count >= 2
    assert kinds == ["digest"] * count + ["attribute"] * count + ["synopsis"]
    assert not any(asked.drafts for asked in sheet.asked)
    spans = [(asked.start_s, asked.stop_s) for asked in sheet.asked if asked.kind == "attribute"]
    assert spans[0][0] == 0.0
    assert spans[-1][1] == 3600.0
    assert [stop for _, stop in spans[:-1]] == [start for start, _ in spans[1:]]
    for what, text, _ in model.asked:
        shown = text.split("<captions>\n")[1].split("\n</captions>")[0]
        assert estimate_tokens(shown) <= 4000 + 360
        assert ("<digest>" in text) == (what != "digest")
        assert text.count("</digest>") == (what != "digest")
        if what == "attribute":
            assert text.count("people ‹/digest›") == count
            assert "The captions of the part from " in text
        if what == "synopsis":
            assert shown.count("\n") > 170  # every second clip
            assert "of the whole, shortened, of a video that is 1:00:00 long" in text


def test_chapters_of_the_captioner_stand_for_digests() -> None:
    said = captions(tuple(f"A person with hat number {i} walks past." for i in range(200)))
    chapter = said[0].model_copy(update={"level": "chapter", "stop_s": 900.0, "text": "Hats pass a door."})
    model = ScriptedModel(NOTHING)
    ask(model, (*said, chapter), caption_tokens=1500)
    assert model.times("digest") == 0
    assert model.times("attribute") >= 2
    assert all("0:00-15:00 Hats pass a door." in text for _, text, _ in model.asked)


def test_a_failed_digest_stops_nothing() -> None:
    said = captions(tuple(f"A person with hat number {i} walks past." for i in range(200)))
    sheet = ask(ScriptedModel({**NOTHING, "digest": ItemError("refused", "no")}), said, caption_tokens=1500)
    assert {asked.outcome for asked in sheet.asked if asked.kind == "digest"} == {"refused"}
    assert {asked.outcome for asked in sheet.asked if asked.kind == "attribute"} == {"answered"}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"questions": 5}',
        '{"questions": [7]}',
        '{"questions": [{"question": "a"}]}',
        '{"questions": [{"evidence": ["x"]}]}',
        '{"questions": [{"question": 1, "answer": 2, "distractors": 3, "evidence": 4}]}',
    ],
)
def test_an_answer_of_another_shape_is_noted_and_the_others_go_on(answer: str) -> None:
    sheet = ask(ScriptedModel({"attribute": answer, "object": draft()}), kinds=("attribute", "object"))
    assert [(asked.kind, asked.outcome) for asked in sheet.asked] == [
        ("attribute", "bad-json"),
        ("object", "answered"),
    ]
    assert sheet.asked[0].usage.tokens_in > 0
    assert sheet.asked[0].detail


def test_a_silent_endpoint_ends_the_step() -> None:
    with pytest.raises(NetworkError, match="gone"):
        ask(ScriptedModel({"attribute": NetworkError("gone")}))


def test_summaries_are_one_request_about_the_whole() -> None:
    model = ScriptedModel({**NOTHING, "summary": {"summary": "Fish is landed,\ncooked and eaten."}})
    sheet = ask(model, summaries=True)
    (summary,) = questions_of(sheet, video(), lines_of(captions()), settings(summaries=True), writer=WRITER)
    assert (summary.kind, summary.answer, summary.form) == (
        "summary",
        "Fish is landed, cooked and eaten.",
        "open",
    )
    assert [span.clip_id for span in summary.evidence] == [f"clip{i}" for i in range(5)]
    assert rejection_of(summary) is None


def test_nothing_said_nothing_asked() -> None:
    model = ScriptedModel({})
    assert ask(model, captions(("", " "))) == Sheet(video_id="v")
    assert model.asked == []


def test_hostile_captions_do_no_harm() -> None:
    model = ScriptedModel({"attribute": draft(answer="banana", evidence=[1])})
    sheet = ask(model, captions(HOSTILE), caption_tokens=50_000)
    ((_, text, _),) = model.asked
    assert text.count("</captions>") == text.count("<captions>") == 1
    assert "{{ 7 * 7 }}" in text
    assert "49" not in text
    (question,) = questions_of(sheet, video(9), lines_of(captions(HOSTILE)), settings(), writer=WRITER)
    assert rejection_of(question) is None  # the words are there; what a checking model says of it decides
    assert ask(model, captions(("x" * 10_000_000,))).asked[0].outcome == "answered"


def test_costs_add_up() -> None:
    answers = {
        "attribute": {"questions": [CRATES, CRATES | {"question": "?"}, CRATES | {"evidence": [77]}]},
        "object": {"questions": []},
        "action": "no JSON",
        "spatial": ItemError("blocked", "no"),
        "ocr": draft(),
    }
    sheet = ask(ScriptedModel(answers), kinds=tuple(answers))
    assert sheet.usage.cost_usd == pytest.approx(0.004)
    made = questions_of(sheet, video(), lines_of(captions()), settings(max_per_video=1), writer=WRITER)
    assert len(made) == 4
    total = total_usage([question.usage for question in made])
    assert (total.tokens_in, total.tokens_out) == (sheet.usage.tokens_in, sheet.usage.tokens_out)
    assert total.cost_usd == pytest.approx(sheet.usage.cost_usd)


def test_shares_of_a_usage() -> None:
    shares = share_usage(Usage(tokens_in=10, tokens_out=2, cost_usd=0.3), 3)
    assert [share.tokens_in for share in shares] == [3, 3, 4]
    assert sum(share.tokens_out for share in shares) == 2


def test_the_shown_span_can_be_the_part() -> None:
    said = captions(tuple(f"A person with hat number {i} walks past." for i in range(200)))
    config = settings(caption_tokens=1500, shown="part", checks={"min_grounded": 0})
    model = ScriptedModel({**NOTHING, "digest": {"summary": "Hats."}, "attribute": draft(evidence=[150])})
    sheet = ModelWriter(model, config, load_prompts(config)).ask(video(200), said)
    made = questions_of(sheet, video(200), lines_of(said), config, writer=WRITER)
    good = [question for question in made if rejection_of(question) is None]
    assert len(good) == 1
    assert good[0].start_s <= 1490 < 1500 <= good[0].stop_s
    assert good[0].stop_s - good[0].start_s < 1000
    others = {r[0] for q in made if (r := rejection_of(q))}
    assert others == {"evidence-clips"}


def test_a_prompt_of_ones_own(tmp_path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "name: mine\nversion: 3\npurpose: a try\nuser: 'Ask **attribute** questions of {{ captions }}'\n"
        "answer: {type: object}\n"
    )
    sheet = ask(ScriptedModel({"attribute": draft()}), prompts={"attribute": str(mine)})
    assert sheet.asked[0].prompt_id.startswith("mine-v3-")
    mine.write_text(
        "name: mine\nversion: 3\npurpose: a try\nuser: 'Ask of {{ captoins }}'\nanswer: {type: object}\n"
    )
    with pytest.raises(ConfigError, match=r"'captoins' is undefined\. It may use: captions, count"):
        load_prompts(settings(prompts={"attribute": str(mine)}))
    mine.write_text("name: mine\nversion: 3\npurpose: a try\nuser: 'Ask of {{ captions }}'\n")
    with pytest.raises(ConfigError, match="has no answer"):
        load_prompts(settings(prompts={"attribute": str(mine)}))
    with pytest.raises(InputError, match="There is no prompt 'nobody'"):
        load_prompts(settings(prompts={"attribute": "nobody"}))
