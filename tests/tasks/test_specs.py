from __future__ import annotations

from pathlib import Path

import pytest

from longvila.config import load_recipe, parse_overrides
from longvila.config.synthetic import RecallTextConfig
from longvila.errors import ConfigError, InputError
from tasks.checkpoints import publish_checkpoint
from tasks.datasets import recall_shards
from tasks.model import theta_of
from tasks.refs import WorkspaceRef
from tasks.specs import spec_for


@pytest.fixture
def reference(tmp_path: Path) -> WorkspaceRef:
    """A workspace with one data set and a folder that stands for a checkpoint."""
    made = WorkspaceRef(root=str(tmp_path / "ws"))
    recall_shards.fn(made, RecallTextConfig(name="recall-long", num_samples=4, min_tokens=20, max_tokens=40))
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    publish_checkpoint(made.open(), "short_sft", folder)
    return made


def recipe(*changes: str):
    return load_recipe("demo", overrides=parse_overrides(changes))


def test_the_run_s_folder_follows_from_what_decides_the_result(reference: WorkspaceRef) -> None:
    first = spec_for(recipe(), "extend_context", reference)
    assert spec_for(recipe(), "extend_context", reference).run_dir == first.run_dir
    assert (
        spec_for(recipe("stages.extend_context.step_timeout_s=5"), "extend_context", reference).run_dir
        == first.run_dir
    )
    assert (
        spec_for(recipe("stages.extend_context.steps=5"), "extend_context", reference).run_dir
        != first.run_dir
    )
    (Path(first.init_from) / "config.json").write_text('{"other": 1}')
    assert spec_for(recipe(), "extend_context", reference).run_dir != first.run_dir


def test_another_data_set_is_another_run(reference: WorkspaceRef) -> None:
    first = spec_for(recipe(), "extend_context", reference)
    config = RecallTextConfig(name="recall-long", num_samples=5, min_tokens=20, max_tokens=40)
    recall_shards.fn(reference, config)
    assert spec_for(recipe(), "extend_context", reference).run_dir != first.run_dir


def test_data_sets_elsewhere_are_given_by_their_path(reference: WorkspaceRef) -> None:
    elsewhere = f"{reference.root}/shards/recall-long"
    changed = recipe(f"stages.extend_context.mixture.0.dataset={elsewhere}")
    assert spec_for(changed, "extend_context", reference).datasets == {elsewhere: elsewhere}


def test_torch_engine_runs_one_process(reference: WorkspaceRef) -> None:
    stage = spec_for(recipe(), "extend_context", reference, engine="torch").stage
    assert (stage.num_processes, stage.ulysses_degree, stage.ring_degree) == (1, 1, 1)


def test_what_is_missing_or_wrong_is_told(reference: WorkspaceRef) -> None:
    with pytest.raises(InputError, match="no checkpoint 'start'"):
        spec_for(recipe(), "align", reference)
    with pytest.raises(InputError, match="There is no data set"):
        spec_for(recipe("stages.extend_context.mixture.0.dataset=recall-short"), "extend_context", reference)
    with pytest.raises(ConfigError, match="makes no such data set"):
        recipe("stages.extend_context.mixture.0.dataset=nowhere")
    with pytest.raises(ConfigError, match="no stage 'middle'"):
        spec_for(recipe(), "middle", reference)
    with pytest.raises(ConfigError, match="engine='jax'"):
        spec_for(recipe(), "extend_context", reference, engine="jax")
    changes = ("stages.extend_context.zero_stage=0", "stages.extend_context.dtype=bfloat16")
    with pytest.raises(ConfigError, match="zero_stage=0 with dtype=bfloat16"):
        spec_for(recipe(*changes), "extend_context", reference)


def test_a_control_has_the_rope_base_that_the_stages_before_left() -> None:
    assert theta_of(recipe(), "short_sft")[0] == recipe().model.llm.rope_theta
    assert theta_of(recipe(), "long_sft") == theta_of(recipe(), "extend_context")
    assert theta_of(recipe(), "long_sft")[0] == recipe().stage("extend_context").rope_theta
