"""Training over two processes through DeepSpeed arrives at what one process arrives at without it.

Losses, gradient norms and all weights after three optimizer steps of AdamW with clipping, float32. Rows are
uneven: they hold different numbers of frames (some none) and of scored tokens, so that any wrong division
shows. Measured: losses within 1.4e-7, gradient norms within 2.5e-7 relative, weights within 7e-6.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

os.environ.setdefault("DS_ACCELERATOR", "cpu")

from longvila.config.stage import LoraConfig, OptimizerConfig
from longvila.model import plain_state
from longvila.training import RunSpec, engine_deepspeed, loop
from longvila.training.build import Built, build
from longvila.training.checkpoint import RunPosition
from longvila.training.metrics import StepMetrics
from longvila.training.run import resume
from longvila.training.signals import StopRequest
from longvila.training.world import World
from tests.distributed import run_ranks
from tests.training import tiny

assert engine_deepspeed  # imported before the ranks are forked

STEPS = 3
OPTIMIZER = OptimizerConfig(
    learning_rate=3e-3,
    part_learning_rates={"vision_tower": 1e-3},
    weight_decay=0.05,
    grad_clip=0.5,
    warmup_ratio=0.4,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("training")
    tiny.write_inputs(root)
    return root


class Trained(NamedTuple):
    losses: list[float]
    grad_norms: list[float]
    state: dict[str, Tensor]


class Recorder:
    """Stands where the metrics writer stands."""

    def __init__(self) -> None:
        self.steps: list[StepMetrics] = []

    def write(self, metrics: StepMetrics, **_: Any) -> None:
        self.steps.append(metrics)

    def progress(self, *_: Any, **__: Any) -> None:
        pass


def train(spec: RunSpec, rank: int, size: int) -> Trained:
    world = World(rank=rank, size=size, device=torch.device("cpu"))
    built = build(spec, world, fingerprint="parity")
    recorder = Recorder()
    stop = StopRequest(spec.paths.stop)
    loop.run(built.trainer, RunPosition(step=0), stop=stop, writer=recorder)  # pyright: ignore[reportArgumentType]
    return Trained(
        [step.loss for step in recorder.steps], [step.grad_norm for step in recorder.steps], _plain(built)
    )


def _plain(built: Built) -> dict[str, Tensor]:
    state = built.trainer.engine.full_state()
    if not state:
        return {}
    return plain_state(built.model, {name.removeprefix("model."): value for name, value in state.items()})


def _rank(rank: int, specs: list[RunSpec]) -> list[Trained]:
    os.environ["LOCAL_RANK"] = str(rank)  # torchrun would set it
    return [train(spec, rank, 2) for spec in specs]


def _spec(root: Path, name: str, **changes: Any) -> RunSpec:
    settings: dict[str, Any] = {"steps": STEPS, "optimizer": OPTIMIZER, "checkpoint_every_steps": 100}
    return tiny.spec(root, name, **{**settings, **changes})


def _alone(spec: RunSpec) -> Trained:
    """The same run in this process, without DeepSpeed: all rows of a step are micro-steps here."""
    stage = {
        **spec.stage.model_dump(),
        "num_processes": 1,
        "ulysses_degree": 1,
        "ring_degree": 1,
    }
    one = RunSpec.model_validate({**spec.model_dump(), "stage": stage, "engine": "torch"})
    return train(one, 0, 1)


def _same(found: Trained, wanted: Trained, *, rtol: float, atol: float) -> None:
    assert found.losses == pytest.approx(wanted.losses, rel=rtol)
    assert found.grad_norms == pytest.approx(wanted.grad_norms, rel=max(rtol, 1e-5) * 10)
    assert found.state.keys() == wanted.state.keys()
    for name, value in wanted.state.items():
        torch.testing.assert_close(
            found.state[name], value, rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


LAYOUTS: dict[str, dict[str, Any]] = {
    "dp2-1": {"rows_per_step": 2},
    "dp2-2": {"rows_per_step": 4},
    "dp2-3": {"rows_per_step": 6},
    "ulysses2-3": {"rows_per_step": 3, "ulysses_degree": 2},
    "ring2-2": {"rows_per_step": 2, "ring_degree": 2},
}


SOME = ("dp2-2", "ulysses2-3")


@pytest.mark.parametrize(
    ("zero_stage", "names"),
    [
        (0, SOME),
        (1, SOME),
        (2, tuple(LAYOUTS)),
        (3, ("dp2-1", "ulysses2-3")),
        pytest.param(0, tuple(LAYOUTS), marks=pytest.mark.slow),
        pytest.param(1, tuple(LAYOUTS), marks=pytest.mark.slow),
        pytest.param(3, tuple(LAYOUTS), marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one(
    zero_stage: int, names: tuple[str, ...], inputs: Path, tmp_path: Path
) -> None:
    specs = [
        _spec(inputs, f"{tmp_path.name}-{name}", zero_stage=zero_stage, **LAYOUTS[name]) for name in names
    ]
    found = run_ranks(_rank, 2, specs, timeout_s=120)[0]
    for spec, trained in zip(specs, found, strict=True):
        alone = _alone(spec)
        assert max(alone.grad_norms) > OPTIMIZER.grad_clip, "clipping must take part"
        _same(trained, alone, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_twenty_steps_have_the_losses_of_one_process(zero_stage: int, inputs: Path, tmp_path: Path) -> None:
    """Measured: losses within 1.4e-7 in all of 20 steps."""
    specs = [
        _spec(inputs, f"{tmp_path.name}-{name}", zero_stage=zero_stage, steps=20, **LAYOUTS[name])
        for name in ("ulysses2-3", "ring2-2")
    ]
    found = run_ranks(_rank, 2, specs, timeout_s=200)[0]
    for spec, trained in zip(specs, found, strict=True):
        alone = _alone(spec)
        assert len(alone.losses) == 20
        assert alone.losses[-1] < 0.8 * alone.losses[0], "it must learn"
        assert trained.losses == pytest.approx(alone.losses, rel=1e-6)


STAGES: dict[str, dict[str, Any]] = {
    "align": {"trains": ("projector",), "ulysses_degree": 2},
    "lora": {"trains": ("llm",), "lora": LoraConfig(rank=2), "rope_theta": 6400.0, "ring_degree": 2},
    "recomputed": {"gradient_checkpointing": True, "ring_degree": 2},
}


@pytest.mark.parametrize("zero_stage", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_partly_frozen_models_train_as_one(zero_stage: int, inputs: Path, tmp_path: Path) -> None:
    specs = [
        _spec(inputs, f"{tmp_path.name}-{name}", zero_stage=zero_stage, **changes)
        for name, changes in STAGES.items()
    ]
    found = run_ranks(_rank, 2, specs, timeout_s=120)[0]
    for spec, trained in zip(specs, found, strict=True):
        _same(trained, _alone(spec), rtol=1e-6, atol=1e-5)


def test_bfloat16_stays_near_float32(inputs: Path, tmp_path: Path) -> None:
    """Measured: losses within 1.3 %. The weights that are exported are the engine's bfloat16 ones."""
    specs = [
        _spec(inputs, f"{tmp_path.name}-{stage}", zero_stage=stage, ulysses_degree=2, dtype="bfloat16")
        for stage in (2, 3)
    ]
    found = run_ranks(_rank, 2, specs, timeout_s=120)[0]
    alone = _alone(specs[0])
    exact = _alone(_spec(inputs, f"{tmp_path.name}-float32", ulysses_degree=2))
    for trained in (alone, *found):
        assert trained.losses == pytest.approx(exact.losses, rel=2e-2)
        assert trained.losses != exact.losses
        assert {value.dtype for name, value in trained.state.items()} == {torch.bfloat16}


def _rank_with_a_break(rank: int, spec: RunSpec) -> list[Trained]:
    """Train through; then train again in two halves, the second from the checkpoint of the first."""
    os.environ["LOCAL_RANK"] = str(rank)
    whole = train(spec, rank, 2)
    world = World(rank=rank, size=2, device=torch.device("cpu"))
    built = build(spec, world, fingerprint="parity")
    position = resume(built)
    assert position.step == 2
    recorder = Recorder()
    loop.run(built.trainer, position, stop=StopRequest(spec.paths.stop), writer=recorder)  # pyright: ignore[reportArgumentType]
    resumed = Trained(
        [step.loss for step in recorder.steps], [step.grad_norm for step in recorder.steps], _plain(built)
    )
    return [whole, resumed]


@pytest.mark.parametrize(
    ("zero_stage", "dtype"),
    [
        (0, "float32"),
        (2, "float32"),
        (3, "float32"),
        (2, "bfloat16"),
        pytest.param(1, "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    zero_stage: int, dtype: str, inputs: Path, tmp_path: Path
) -> None:
    spec = _spec(
        inputs,
        f"{tmp_path.name}-break",
        steps=4,
        zero_stage=zero_stage,
        dtype=dtype,
        checkpoint_every_steps=2,
        trains=("projector", "llm"),
    )
    whole, resumed = run_ranks(_rank_with_a_break, 2, spec, timeout_s=120)[0]
    assert resumed.losses == whole.losses[2:]
    assert resumed.grad_norms == whole.grad_norms[2:]
    _same(resumed, Trained(resumed.losses, resumed.grad_norms, whole.state), rtol=0.0, atol=0.0)
