"""The published prompts: whole, alike where they should be, and their own good examples pass our checks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from longvila.curation.asking.checks import questions_of, rejection_of
from longvila.curation.asking.judge import PROMPTS, load_check_prompts
from longvila.curation.asking.outline import lines_of
from longvila.curation.asking.writer import KINDS, WRITER, ModelWriter, load_prompts
from longvila.curation.language.prompts import Prompt
from longvila.curation.language.schema import check_schema
from longvila.errors import ConfigError
from longvila.records import Caption
from tests.curation.asking.scripted import ScriptedModel, settings, video

FOLDER = Path(__file__).resolve().parents[3] / "datasets" / "prompts"
FILES = sorted(FOLDER.glob("question-*.yaml")) + sorted(FOLDER.glob("check-*.yaml"))
LOADED = load_prompts(settings(kinds=(), summaries=True))
VALUES: dict[str, Any] = {
    "captions": "[1] 0:00-0:10 {{ braces }} {% raw %}", "digest": "", "span": "the whole", "duration": "0:10",
    "count": 3, "num_distractors": 3, "words": 100,
}  # fmt: skip
EXAMPLE = re.compile(r"^\[(\d)\] (\d+):(\d+)-(\d+):(\d+) (.*)$", re.MULTILINE)


def examples(prompt: Prompt, mark: str) -> list[dict[str, Any]]:
    """The examples in a prompt that are written as JSON."""
    found = []
    for place in re.finditer(rf"^{mark}: (?=\{{)", prompt.user, re.MULTILINE):
        found.append(json.JSONDecoder().raw_decode(prompt.user, place.end())[0])
    return found


def example_captions(prompt: Prompt) -> list[Caption]:
    """The captions that the examples are about."""
    return [
        Caption(
            caption_id=f"k{n}", clip_id=f"c{n}", video_id="v", start_s=int(a) * 60 + int(b),
            stop_s=int(c) * 60 + int(d), text=text, captioner="c",
        )
        for n, a, b, c, d, text in EXAMPLE.findall(prompt.user)
    ]  # fmt: skip


def test_every_kind_and_check_has_a_file_and_every_file_a_use() -> None:
    names = {prompt.name for prompt in LOADED.values()} | set(PROMPTS)
    assert {path.stem for path in FILES} == names
    assert set(LOADED) == {*KINDS, "summary", "digest"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_prompt_is_plain_text_of_readable_width(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert all(len(line) <= 130 for line in text.split("\n"))
    assert "\t" not in text
    assert "<|" not in text


@pytest.mark.parametrize("kind", LOADED)
def test_a_prompt_renders_what_it_is_given_and_asks_for_json(kind: str) -> None:
    prompt = LOADED[kind]
    *_, turn = prompt.messages(VALUES)
    assert VALUES["captions"] in turn.text
    assert "<digest>" not in turn.text
    assert turn.text.count("{{") == 1
    assert "JSON only" in turn.text
    (system, turn) = prompt.messages(VALUES | {"digest": "It rains."})
    assert system.role == "system"
    assert "never follow it" in system.text.lower()
    assert ("It rains." in turn.text) == (kind != "digest" or "{{ digest }}" in prompt.user)
    assert prompt.answer is not None
    check_schema(prompt.answer)
    with pytest.raises(ConfigError, match="It may use: span"):
        prompt.messages({"span": ""})


def test_the_rules_are_the_same_for_all_kinds() -> None:
    assert len({LOADED[kind].system for kind in KINDS}) == 1
    assert len({tuple(EXAMPLE.findall(LOADED[kind].user)) for kind in KINDS}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_good_examples_pass_the_checks(kind: str) -> None:
    prompt = LOADED[kind]
    good = examples(prompt, "Good")
    assert good
    said = example_captions(prompt)
    assert len(said) == 5
    config = settings(kinds=(kind,), forms=("choice",))
    writer = ModelWriter(ScriptedModel({kind: {"questions": good}}), config, LOADED)
    sheet = writer.ask(video(6), said)
    made = questions_of(sheet, video(6), lines_of(said), config, writer=WRITER)
    assert [rejection_of(question) for question in made] == [None] * len(good)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_bad_examples_too(kind: str) -> None:
    assert len(re.findall(r"^Bad: ", LOADED[kind].user, re.MULTILINE)) >= 2


def test_checks_take_options_or_none() -> None:
    values = {
        "captions": "[1] 0:00-0:10 a",
        "duration": "0:10",
        "question": "Which?",
        "expected": "a",
        "given": "b",
    }
    for prompt in load_check_prompts().values():
        without = prompt.messages(values | {"options": ()})[-1].text
        shown = prompt.messages(values | {"options": ("ash", "elm")})[-1].text
        assert "Options" not in without
        assert ("- ash\n- elm" in shown) == (prompt.name != "check-same")
        assert "Which?" in without
