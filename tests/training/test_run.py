"""One trainer process, here in the test's own: torch engine, CPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from longvila.config.stage import LoraConfig, OptimizerConfig
from longvila.errors import ConfigError, InputError
from longvila.model import load_checkpoint, rope_theta
from longvila.training import Outcome, Progress, RunSpec
from longvila.training.checkpoint import newest_step
from longvila.training.loop import NumericsError
from longvila.training.run import run
from longvila.training.runfiles import read_model
from tests.training import tiny


def _spec(inputs: Path, name: str, **changes: object) -> RunSpec:
    spec = tiny.spec(inputs, name, **{"engine": "torch", "num_processes": 1, "steps": 6, **changes})
    spec.paths.root.mkdir(parents=True, exist_ok=True)
    return spec


def _outcome(spec: RunSpec) -> Outcome:
    outcome = read_model(spec.paths.outcome, Outcome)
    assert outcome is not None
    return outcome


@pytest.fixture(scope="module")
def whole(inputs: Path) -> RunSpec:
    spec = _spec(inputs, "run-whole")
    assert run(spec) == "complete"
    return spec


def test_a_run_ends_with_an_export_and_an_outcome(whole: RunSpec) -> None:
    outcome = _outcome(whole)
    assert (outcome.status, outcome.step, outcome.export) == ("complete", 6, str(whole.paths.export))
    model, tokenizer, info = load_checkpoint(whole.paths.export)
    wanted = {"stage": "short_sft", "fingerprint": outcome.fingerprint, "max_frames": 8}
    assert info["stage_info"] == wanted
    assert len(tokenizer) == model.llm.config.vocab_size
    progress = read_model(whole.paths.progress, Progress)
    assert progress is not None
    assert (progress.step, progress.phase) == (6, "exporting")


def test_a_stop_file_ends_with_a_checkpoint_and_the_rest_gives_the_same_weights(
    whole: RunSpec, inputs: Path
) -> None:
    spec = _spec(inputs, "run-stopped")
    spec.paths.stop.touch()
    assert run(spec) == "stopped"
    assert (_outcome(spec).status, _outcome(spec).step) == ("stopped", 1)
    spec.paths.stop.unlink()
    assert run(spec) == "complete"
    tiny.same_weights(spec.paths.export, whole.paths.export)
    assert len(spec.paths.metrics.read_text().splitlines()) == 6
    assert _outcome(spec).tokens == _outcome(whole).tokens


def test_a_damaged_checkpoint_is_passed_over(whole: RunSpec, inputs: Path) -> None:
    spec = _spec(inputs, "run-damaged")
    shutil.copytree(whole.paths.checkpoints, spec.paths.checkpoints)
    (spec.paths.checkpoints / "step-000006.tmp").mkdir()
    victim = spec.paths.checkpoints / "step-000004" / "torch_engine.pt"
    victim.write_bytes(victim.read_bytes()[:100])
    assert newest_step(spec.paths.checkpoints) == 2
    assert run(spec) == "complete"
    tiny.same_weights(spec.paths.export, whole.paths.export)


def test_a_checkpoint_of_another_run_or_layout_is_refused(whole: RunSpec, inputs: Path) -> None:
    other = _spec(inputs, "run-other", seed=5)
    shutil.copytree(whole.paths.checkpoints, other.paths.checkpoints)
    with pytest.raises(ConfigError, match="new run folder"):
        run(other)
    spec = _spec(inputs, "run-layout")
    shutil.copytree(whole.paths.checkpoints, spec.paths.checkpoints)
    for meta in spec.paths.checkpoints.glob("*/meta.json"):
        meta.write_text(meta.read_text().replace('"world_size": 1', '"world_size": 4'))
    with pytest.raises(ConfigError, match="on 4 processes"):
        run(spec)


def test_numbers_that_run_away_end_the_run(inputs: Path) -> None:
    wild = OptimizerConfig(learning_rate=1e30, grad_clip=0.0, warmup_ratio=0.0)
    spec = _spec(inputs, "run-wild", optimizer=wild)
    with pytest.raises(NumericsError, match=r"Lower optimizer\.learning_rate"):
        run(spec)
    assert (_outcome(spec).status, _outcome(spec).failure) == ("failed", "numerics")


def test_a_lora_stage_exports_a_plain_model(inputs: Path) -> None:
    spec = _spec(
        inputs, "run-lora", trains=("llm",), lora=LoraConfig(rank=2), rope_theta=6400.0, max_context=4096
    )
    assert run(spec) == "complete"
    model = load_checkpoint(spec.paths.export).model
    assert (rope_theta(model.llm), model.llm.config.max_position_embeddings) == (6400.0, 4096)
    assert not any("lora" in name for name in model.state_dict())
    start = load_checkpoint(Path(spec.init_from)).model.state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    assert any("q_proj.weight" in name for name in changed)
    assert not any("mlp" in name or name.startswith(("vision_tower", "projector")) for name in changed)


def test_the_torch_engine_keeps_float32_copies_in_bfloat16(inputs: Path) -> None:
    spec = _spec(inputs, "run-bfloat16", dtype="bfloat16", optimizer=OptimizerConfig(learning_rate=1e-5))
    assert run(spec) == "complete"
    state = torch.load(spec.paths.checkpoints / "step-000004" / "torch_engine.pt", weights_only=True)
    assert {value.dtype for value in state["weights"]} == {torch.float32}
    assert any((value != value.bfloat16().float()).any() for value in state["weights"])


def test_the_wrong_number_of_processes_is_refused(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="--nproc-per-node=1"):
        run(_spec(inputs, "run-three"))


def test_a_missing_start_is_named(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        run(_spec(inputs, "run-nothing", init_from=str(tmp_path / "none")))
