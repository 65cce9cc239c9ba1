"""Contradictions between fields that no field can see alone, said at the field before anything starts."""

from __future__ import annotations

from typing import get_args

import pytest

from longvila.config import load_recipe, parse_overrides, recipe_names
from longvila.config.consistency import QWEN2_LAYERS, TOKENS_PER_CARD, TOKENS_PER_PAIR, contradictions
from longvila.config.language import QuestionKind
from longvila.config.synthetic import MAX_CARDS
from longvila.curation.composing import recall
from longvila.curation.composing.needles import COLOURS
from longvila.curation.questions import KINDS
from longvila.errors import ConfigError

# (the change, the field that is named, what is said)
WRONG = [
    ("data.frames.size=48", "data.frames.size", "model.vision.image_size=32"),
    ("model.vision.image_size=64", "data.frames.size", "model.vision.image_size=64"),
    ("model.vision.patch_size=64", "model.vision", "larger than image_size=32"),
    ("model.vision.select_layer=-9", "model.vision", "does not exist with num_layers=3"),
    ("model.llm.hidden_size=66", "model.llm", "is odd"),
    ("model.llm.rope_theta=.inf", "model.llm.rope_theta", "finite"),
    ("data.clips.min_s=30", "data.clips", "does not hold"),
    ("data.clips.max_s=2", "data.clips", "does not hold"),
    ("data.validation.min_duration_s=99999999", "data.validation", "is more than max_duration_s"),
    ("data.questions.kinds=[nonsense]", "data.questions.kinds", "main_colour"),
    ("data.questions.window_s=[0]", "data.questions.window_s", "greater than 0"),
    ("data.needle_sets.needles-short.min_frames=99", "needles-short", "is more than max_frames=16"),
    ("data.needle_sets.needles-short.needles=50", "needles-short.needles", "less than or equal to 8"),
    ("data.needle_sets.needles-short.name=../../etc", "name", "pattern"),
    ("data.needle_sets.needles-short.name=questions", "questions.name", "two data sets have this name"),
    ("data.needle_sets.needles-short.name=needles-long", "name", "two data sets have this name"),
    ("data.recall_texts.recall-short.min_tokens=4000", "recall-short", "is more than max_tokens=48"),
    ("data.recall_texts.recall-short.min_tokens=3", "recall-short.min_tokens", "Use at least 7"),
    ("stages.align.mixture=[{dataset: nobody}]", "stages.align.mixture.0.dataset", "It makes: questions,"),
    (
        "stages.align.mixture=[{dataset: questions}, {dataset: questions}]",
        "stages.align.mixture.1.dataset",
        "named twice",
    ),
    ("stages.align.max_tokens=1", "stages.align.max_tokens", "one frame needs up to"),
    ("stages.long_sft.max_tokens=20", "stages.long_sft.max_tokens", "a sample of 'needles-long'"),
    ("stages.extend_context.max_tokens=100", "stages.extend_context.max_tokens", "'recall-long'"),
    ("stages.long_sft.head_groups=7", "stages.long_sft.head_groups", "query heads that a rank holds"),
    (
        "stages.align.num_processes=4 stages.align.rows_per_step=4 stages.align.ulysses_degree=4",
        "stages.align.ulysses_degree",
        "put the rest into ring_degree",
    ),
    (
        "stages.align.ring_degree=8 stages.align.rows_per_step=8 stages.align.num_processes=8 "
        "stages.align.smaller_degrees=[[1,1],[4,1]]",
        "stages.align.smaller_degrees.1.0",
        "put the rest into ring_degree",
    ),
    (
        "stages.align.ring_degree=2 stages.align.num_processes=2 stages.align.smaller_degrees=[[0,1]]",
        "stages.align.smaller_degrees.0.0",
        "greater than 0",
    ),
    ("stages.align.optimizer.part_learning_rates={llm: 1.0}", "stages.align", "does not train"),
    ("stages.align.optimizer.betas=[2, 3]", "stages.align.optimizer.betas", "less than 1"),
    ("stages.align.trains=[projector, projector]", "stages.align", "names a part twice"),
    ("stages.extend_context.lora.targets=[nothing]", "extend_context.lora.targets", "q_proj"),
    ("stages.extend_context.lora.targets=[]", "extend_context.lora.targets", "at least 1 must be given"),
    ("stages.extend_context.max_context=10", "extend_context.max_context", "shorter than the 48"),
    ("controls.theta-only.start=long_sft", "controls", "must be a stage after"),
    ("controls.no-extension.like=align", "controls", "must be a stage after"),
    ("controls.theta-only.name=align", "controls.align.name", "a stage's checkpoint has this name"),
    ("controls.theta-only.name=no-extension", "no-extension.name", "two controls have this name"),
    ("controls.theta-only.name=../x", "name", "pattern"),
    ("evaluation.qa.dataset=nobody", "evaluation.qa.dataset", "makes no such data set"),
    ("evaluation.needle.frames=[]", "evaluation.needle.frames", "at least 1 must be given"),
    ("evaluation.needle.frames=[0]", "evaluation.needle.frames", "greater than 0"),
    ("evaluation.needle.depths=[2.0]", "evaluation.needle.depths", "less than or equal to 1"),
    ("evaluation.needle.needles=99", "evaluation.needle.needles", "less than or equal to 8"),
    ("evaluation.frames_curve.sampled=[64]", "evaluation.frames_curve", "video_frames=32"),
]


@pytest.mark.parametrize(("changes", "field", "said"), WRONG, ids=[change for change, _, _ in WRONG])
def test_a_contradiction_is_said_at_its_field(changes: str, field: str, said: str) -> None:
    several = changes.split() if changes.count("stages.") > 1 else [changes]
    with pytest.raises(ConfigError) as caught:
        load_recipe("tiny", overrides=parse_overrides(several))
    text = str(caught.value)
    assert field in text
    assert said in text


def test_all_contradictions_are_said_at_once_each_with_its_line() -> None:
    changes = ["data.frames.size=48", "evaluation.qa.dataset=nobody", "stages.long_sft.max_tokens=20"]
    with pytest.raises(ConfigError) as caught:
        load_recipe("tiny", overrides=parse_overrides(changes))
    assert "has 3 errors" in str(caught.value)
    assert "data.frames.size (--set data.frames.size): 48 was given" in str(caught.value)


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipes_contradict_nothing(name: str) -> None:
    assert list(contradictions(load_recipe(name))) == []


def test_what_is_said_here_of_other_parts_is_true() -> None:
    assert len(COLOURS) == MAX_CARDS
    assert set(get_args(QuestionKind)) == set(KINDS)
    assert recall.shortest_text(1) == TOKENS_PER_CARD + TOKENS_PER_PAIR
    assert {"q_proj", "down_proj"} <= set(QWEN2_LAYERS)
