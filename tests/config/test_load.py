from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from longvila.config import Recipe, dump_settings, load_recipe, load_settings, parse_overrides, recipe_names
from longvila.errors import ConfigError, InputError

SMALL = """\
name: small
model:
  llm:
    hidden_size: 64
    num_heads: 4
    num_kv_heads: 2
stages:
  - name: align
    trains: [projector]
    mixture: [{dataset: captions}]
    max_frames: 8
    max_tokens: 512
    optimizer: {learning_rate: 1e-3}
  - name: short_sft
    trains: [projector, llm]
    mixture: [{dataset: questions}]
    max_frames: 8
    max_tokens: 512
    optimizer: {learning_rate: 1e-4}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def wrong(path: Path, old: str, new: str) -> str:
    """What is said of the recipe with one change in it."""
    assert old in SMALL
    path.write_text(SMALL.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    return str(caught.value)


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipes_are_whole_and_survive_a_round_trip(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert [stage.name for stage in recipe.stages] == [
        "align",
        "pretrain",
        "short_sft",
        "extend_context",
        "long_sft",
    ]
    assert Recipe.model_validate(yaml.safe_load(dump_settings(recipe))) == recipe


def test_the_paper_s_recipes_have_the_paper_s_numbers() -> None:
    recipe = load_recipe("longvila-7b")
    assert [stage.optimizer.learning_rate for stage in recipe.stages] == [1e-3, 5e-5, 1e-4, 2e-5, 5e-5]
    assert [stage.zero_stage for stage in recipe.stages] == [2, 3, 3, 2, 3]
    assert recipe.model.tokens_per_frame == 196
    extended = recipe.stage("extend_context")
    assert (extended.max_tokens, extended.rope_theta) == (262_144, 207_112_184)
    assert extended.lora is not None
    assert extended.lora.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    long_sft = recipe.stage("long_sft")
    assert long_sft.max_frames * (recipe.model.tokens_per_frame + 1) < long_sft.max_tokens
    assert load_recipe("longvila-1.5b").model.tokens_per_frame == 256


def test_numbers_in_scientific_notation_are_numbers(small: Path) -> None:
    assert load_recipe(small).stage("align").optimizer.learning_rate == 1e-3


def test_override_reaches_a_stage_by_its_name(small: Path) -> None:
    overrides = parse_overrides(
        ["stages.short_sft.steps=10", "stages.0.max_frames=4", "model.llm.rope_theta=1e2"]
    )
    recipe = load_recipe(small, overrides=overrides)
    assert recipe.stage("short_sft").steps == 10
    assert recipe.stage("align").max_frames == 4
    assert recipe.model.llm.rope_theta == 100


def test_unknown_key_names_file_line_and_the_nearest_key(small: Path) -> None:
    said = wrong(small, "max_frames: 8", "max_framess: 8")
    assert f"recipe {small} has 4 errors" in said
    assert "stages.align.max_framess (line 11): unknown key. Did you mean 'max_frames'?" in said
    assert "stages.short_sft.max_frames (line 14): missing." in said


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "learning_rate: 1e-3",
            "learning_rate: fast",
            "stages.align.optimizer.learning_rate (line 13): 'fast'",
        ),
        ("learning_rate: 1e-3", "learning_rate: -1", "greater than 0"),
        ("num_heads: 4", "num_heads: 5", "num_heads=5 does not divide hidden_size=64"),
        ("trains: [projector]", "trains: [projektor]", "'vision_tower', 'projector' or 'llm'"),
        ("name: short_sft", "name: shortsft", "'align', 'pretrain', 'short_sft'"),
        ("name: short_sft", "name: align", "each at most once"),
        ("name: small", "name: Small One", "String should match pattern"),
        ("max_tokens: 512", "max_tokens: [512]", "valid integer"),
        ("mixture: [{dataset: captions}]", "mixture: []", "at least 1 must be given"),
    ],
)
def test_each_wrong_field_is_explained(small: Path, old: str, new: str, expected: str) -> None:
    assert expected in wrong(small, old, new)


def test_override_that_is_wrong_is_named_as_such(small: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages.align.steps \(--set stages.align.steps\): -3 was given"):
        load_recipe(small, overrides={"stages.align.steps": -3})
    with pytest.raises(ConfigError, match=r"stages has no item 'middle'. Known: align, short_sft"):
        load_recipe(small, overrides={"stages.middle.steps": 3})
    with pytest.raises(ConfigError, match="has nothing below it"):
        load_recipe(small, overrides={"name.first": "x"})


@pytest.mark.parametrize("text", ["stages.align.steps", "=3", "a..b=1", ".a=1"])
def test_override_of_the_wrong_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"not of the form a.b=value"):
        parse_overrides([text])


def test_override_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match="not YAML"):
        parse_overrides(["a=[1, 2"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "it is empty"),
        ("- a\n- b\n", "it is a list"),
        ("name: [1,\n", "is not YAML at line"),
        ("name: a\nname: b\n", "gives 'name' twice, the second time in line 2"),
        ("a: !!python/object/apply:os.system ['true']\n", "is not YAML"),
    ],
)
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert expected in str(caught.value)


def test_missing_recipe_lists_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Did you mean 'longvila-7b'\? Known recipes: .*longvila-1.5b"):
        load_recipe("longvla-7b")
    with pytest.raises(InputError, match="does not exist"):
        load_recipe(tmp_path / "nothing.yaml")
    with pytest.raises(InputError, match="is a folder"):
        load_recipe(f"{tmp_path}/")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        load_recipe(path)


def test_any_settings_model_can_be_loaded(tmp_path: Path) -> None:
    from longvila.config.sourcing import FetchConfig

    path = tmp_path / "fetch.yaml"
    path.write_text("timeout_s: 3\n")
    assert load_settings(path, FetchConfig, overrides={"attempts": 2}) == FetchConfig(timeout_s=3, attempts=2)
