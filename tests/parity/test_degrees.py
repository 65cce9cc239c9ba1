"""A step whose micro-steps have different degrees against one process.

Without an engine in float64, where one process reads one document at a time; and three steps of AdamW through
DeepSpeed. The loader, the plan and the collation are the product's own. Measured: in float64 every gradient
within 5e-13 of its largest element; through DeepSpeed losses within 1e-7, weights within 7.1e-6.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

os.environ.setdefault("DS_ACCELERATOR", "cpu")

from longvila.config.stage import StageConfig
from longvila.data import PackedLoader, TrainStep, open_reader
from longvila.data.collate import Collator
from longvila.data.lengths import Encoder
from longvila.data.loader import MicroBatches
from longvila.data.run_plan import RunPlan
from longvila.model import load_checkpoint
from longvila.model.module import identity_exchange
from longvila.parallel import for_data_parallel, register_attention
from longvila.parallel.groups import make_groups_of
from longvila.training import RunSpec, engine_deepspeed, loop, micro_step
from longvila.training.build import build
from longvila.training.checkpoint import RunPosition
from longvila.training.micro_step import Calls, MicroStep
from longvila.training.signals import StopRequest
from longvila.training.world import World
from tests.distributed import run_ranks
from tests.parity.models import gradients, largest_error, with_exact_norms
from tests.parity.test_longvila import plain_attend
from tests.parity.test_training import (
    OPTIMIZER,
    Recorder,
    Trained,
    _plain,
    _rank_with_a_break,
    _same,
    train,
)
from tests.training import tiny

assert engine_deepspeed  # imported before the ranks are forked

TOLERANCE = 1e-8
STEPS = 3
# Samples have 5 to 32 tokens: of rows of 48 one rank holds 12, two hold 24.
THREE: dict[str, Any] = {"ulysses_degree": 2, "ring_degree": 2, "smaller_degrees": ((1, 1), (2, 1))}
TWO: dict[str, Any] = {"ulysses_degree": 2, "smaller_degrees": ((1, 1),), "seed": 3}
RINGS: dict[str, Any] = {"ring_degree": 4, "smaller_degrees": ((1, 1), (1, 2))}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("degrees")
    tiny.write_inputs(root)
    return root


def make_spec(root: Path, name: str = "run", *, world_size: int, **changes: Any) -> RunSpec:
    settings = {
        "max_tokens": 48,
        "rows_per_step": 8,
        "steps": STEPS,
        "num_processes": world_size,
        "checkpoint_every_steps": 100,
        "optimizer": OPTIMIZER,
    }
    return tiny.spec(root, name, **{**settings, **changes})


class OnOneProcess:
    """Gives one process all rows of each step, whatever ranks and degrees they are planned for."""

    def __init__(self, spec: RunSpec, *, alone: bool = False) -> None:
        stage, (_, tokenizer, _) = spec.stage, load_checkpoint(spec.init_from)
        loader = PackedLoader(spec.datasets, stage, tokenizer, spec.model, world_size=stage.sp_size)
        encoder = Encoder.of(tokenizer, spec.model, max_frames=stage.max_frames, max_tokens=stage.max_tokens)
        readers = [open_reader(url, split="train") for url in spec.datasets.values()]
        self.plan, self._info, self._alone = loader.plan, loader.info, alone
        self._collate = Collator(readers, encoder, spec.model, rank=0, degrees=[(1, 1)], pad_id=0)

    @property
    def num_steps(self) -> int:
        return self.plan.num_steps

    def __iter__(self) -> Iterator[TrainStep]:
        for step in range(self.num_steps):
            rows = [self.plan.row(row) for row in self.plan.rows_of(step)]
            if self._alone:
                rows = [row.take(np.array([i])) for row in rows for i in range(len(row.sample))]
            yield TrainStep(self._info(step), MicroBatches(map(self._collate, rows), len(rows)))


def mixed_step(plan: RunPlan, dp_size: int) -> int:
    """A step of several degrees in which, where there are replicas to wait for, rows are joined."""
    for step in range(plan.num_steps):
        planned = plan.micro_steps(step, dp_size)
        joined = any(len(rows) > 1 for one in planned for rows in one.rows)
        if len({one.degree_index for one in planned}) > 1 and joined == (dp_size > 1):
            return step
    raise AssertionError("no step of this plan is worth looking at")


def make_module(spec: RunSpec) -> MicroStep:
    register_attention()
    model = load_checkpoint(spec.init_from, dtype=torch.float64).model
    with_exact_norms(model)
    return MicroStep(model).train()


def on_one_process(spec: RunSpec, number: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean loss over the scored tokens of one step, document by document, and its gradients."""
    module, step = make_module(spec), next(islice(OnOneProcess(spec, alone=True), number, None))
    losses = [
        module(
            batch.input_ids_t,
            batch.labels_t,
            batch.position_ids_t,
            batch.frames_fHW3,
            batch.local_seats_n,
            attend=plain_attend,
            exchange=identity_exchange,
            calls=Calls(),
        )
        for batch in step.batches
    ]
    loss = torch.stack(losses).sum() / step.info.total_scored
    loss.backward()
    return loss.detach(), gradients(module)


def on_rank(rank: int, spec: RunSpec, size: int, number: int) -> tuple[Tensor, dict[str, Tensor]]:
    """One step as an engine sees it: micro-steps, then gradients averaged over the world."""
    module, groups = make_module(spec), make_groups_of(spec.stage.degrees)
    world = groups[0].world
    tokenizer = load_checkpoint(spec.init_from).tokenizer
    loader = PackedLoader(
        spec.datasets, spec.stage, tokenizer, spec.model, rank=rank, world_size=size, consumed_steps=number
    )
    steps = iter(loader)
    step = next(steps)
    total = torch.zeros((), dtype=torch.float64)
    for batch in step.batches:
        loss = micro_step.run(
            module,
            batch,
            groups[batch.degree_index],
            calls=Calls(),
            device=torch.device("cpu"),
        )
        loss = for_data_parallel(loss, total_scored=step.info.total_scored, world_size=size)
        loss.backward()
        total += loss.detach() / size
    steps.close()
    found = gradients(module)
    assert len({tuple(names) for names in world.gather_objects(list(found))}) == 1
    return world.all_reduce(total), {name: world.all_reduce(grad) / size for name, grad in found.items()}


@pytest.mark.parametrize(
    ("degrees", "size"), [(THREE, 4), (RINGS, 4), (TWO, 4), pytest.param(THREE, 8, marks=pytest.mark.slow)]
)
def test_a_step_of_several_degrees_trains_as_one(degrees: dict[str, Any], size: int, inputs: Path) -> None:
    spec = make_spec(inputs, world_size=size, **degrees)
    number = mixed_step(OnOneProcess(spec).plan, size // spec.stage.sp_size)
    wanted_loss, wanted = on_one_process(spec, number)
    for loss, found in run_ranks(on_rank, size, spec, size, number):
        torch.testing.assert_close(loss, wanted_loss, rtol=TOLERANCE, atol=0)
        error, name = largest_error(found, wanted)
        assert error <= TOLERANCE, name


def on_deepspeed(rank: int, specs: list[RunSpec], size: int) -> list[Trained]:
    os.environ["LOCAL_RANK"] = str(rank)  # torchrun would set it
    return [train(spec, rank, size) for spec in specs]


def alone(spec: RunSpec) -> Trained:
    """The same steps in this process, without DeepSpeed: each packed row is a micro-step of degree 1."""
    single = {"num_processes": 1, "ulysses_degree": 1, "ring_degree": 1, "smaller_degrees": ()}
    stage = StageConfig.model_validate({**spec.stage.model_dump(), **single})
    one = RunSpec.model_validate({**spec.model_dump(), "stage": stage, "engine": "torch"})
    built = build(one, World(rank=0, size=1, device=torch.device("cpu")), fingerprint="parity")
    trainer = replace(built.trainer, loader=OnOneProcess(spec))  # pyright: ignore[reportArgumentType]
    recorder = Recorder()
    stop = StopRequest(spec.paths.stop)
    loop.run(trainer, RunPosition(step=0), stop=stop, writer=recorder)  # pyright: ignore[reportArgumentType]
    losses, norms = zip(*((step.loss, step.grad_norm) for step in recorder.steps), strict=True)
    return Trained(list(losses), list(norms), _plain(built))


@pytest.mark.parametrize(
    ("degrees", "size", "zero_stages"),
    [(TWO, 2, (2, 3)), pytest.param(TWO, 4, (0, 1, 2, 3), marks=pytest.mark.slow)],
)
def test_deepspeed_trains_several_degrees_as_one(
    degrees: dict[str, Any], size: int, zero_stages: tuple[int, ...], inputs: Path, tmp_path: Path
) -> None:
    specs = [
        make_spec(inputs, f"{tmp_path.name}-{stage}", world_size=size, zero_stage=stage, **degrees)
        for stage in zero_stages
    ]
    mixed_step(OnOneProcess(specs[0]).plan, size // specs[0].stage.sp_size)
    found = run_ranks(on_deepspeed, size, specs, size, timeout_s=240)[0]
    wanted = alone(specs[0])
    assert max(wanted.grad_norms) > OPTIMIZER.grad_clip, "clipping must take part"
    for trained in found:
        _same(trained, wanted, rtol=1e-6, atol=1e-5)


def test_a_resumed_run_of_several_degrees_is_bit_for_bit_the_uninterrupted_one(
    inputs: Path, tmp_path: Path
) -> None:
    spec = make_spec(
        inputs, tmp_path.name, world_size=2, steps=4, zero_stage=3, checkpoint_every_steps=2, **TWO
    )
    whole, resumed = run_ranks(_rank_with_a_break, 2, spec, timeout_s=120)[0]
    assert resumed.losses == whole.losses[2:]
    assert resumed.grad_norms == whole.grad_norms[2:]
    _same(resumed, Trained(resumed.losses, resumed.grad_norms, whole.state), rtol=0.0, atol=0.0)
