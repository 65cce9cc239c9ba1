"""The training loop: optimizer steps of micro-steps, with metrics, checkpoints, and an orderly end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from longvila.config.stage import StageConfig
from longvila.data import PackedBatch, PackedLoader, TrainStep
from longvila.errors import TrainingFailed
from longvila.parallel import Groups, for_data_parallel
from longvila.training import checkpoint, micro_step
from longvila.training.checkpoint import CheckpointMeta, RunPosition
from longvila.training.engine import Engine
from longvila.training.metrics import MetricsWriter, StepMetrics, memory_in_use
from longvila.training.micro_step import Calls
from longvila.training.signals import StopRequest
from longvila.training.spec import RunPaths
from longvila.training.stages import learning_rates
from longvila.training.world import World

logger = logging.getLogger(__name__)


class NumericsError(TrainingFailed):
    """The loss or the gradient is no longer a number."""


@dataclass(frozen=True)
class Trainer:
    """Everything that the loop drives."""

    stage: StageConfig
    engine: Engine
    loader: PackedLoader
    groups_by_degree: tuple[Groups, ...]  # for each of the stage's degrees, smallest first
    world: World
    paths: RunPaths
    meta: CheckpointMeta
    base_rates: tuple[float, ...]

    @property
    def groups(self) -> Groups:
        """Those of the stage's own, largest degree."""
        return self.groups_by_degree[-1]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.loader.num_steps


class LoopResult(NamedTuple):
    """How the loop ended, and where."""

    status: Literal["complete", "stopped"]
    position: RunPosition


class _Forward(NamedTuple):
    """What the micro-steps of one optimizer step found on this rank."""

    loss_sum: float
    num_frames: int
    num_places: int
    data_wait_s: float


def run(
    trainer: Trainer, position: RunPosition, *, stop: StopRequest, writer: MetricsWriter | None
) -> LoopResult:
    """Train from ``position`` to the last step, or until all agree to stop (collective).

    ``writer`` exists on rank 0. Raises ``NumericsError`` before a step that would spoil the weights.
    """
    saved_step: int | None = position.step or None
    started = time.perf_counter()
    with closing(cast(Generator[TrainStep, None, None], iter(trainer.loader))) as steps:
        for step in steps:
            position, metrics, asked = _optimizer_step(trainer, position, step, stop, started)
            started = time.perf_counter()
            if writer is not None:
                writer.write(metrics, tokens=position.tokens, checkpoint_step=saved_step)
            last = position.step == trainer.total_steps
            if not last and (asked or position.step % trainer.stage.checkpoint_every_steps == 0):
                _save(trainer, position, writer, saved_step)
                saved_step = position.step
            if asked and not last:
                return LoopResult("stopped", position)
    return LoopResult("complete", position)


def _optimizer_step(
    trainer: Trainer, position: RunPosition, step: TrainStep, stop: StopRequest, started: float
) -> tuple[RunPosition, StepMetrics, bool]:
    """One update from one step's rows; ``started`` is when the wait for them began."""
    number = position.step + 1
    done = _forward_backward(trainer, step)
    mine = (done.loss_sum, done.num_frames, done.num_places, float(stop.asked))
    loss_sum, num_frames, num_places, votes = trainer.world.sum(mine)
    loss = loss_sum / max(1, step.info.total_scored)
    _check_finite("loss", loss, step=number)
    rates = learning_rates(
        position.step,
        base=trainer.base_rates,
        total_steps=trainer.total_steps,
        optimizer=trainer.stage.optimizer,
    )
    grad_norm = trainer.engine.step(rates)
    _check_finite("gradient norm", grad_norm, step=number)
    step_s = time.perf_counter() - started
    metrics = StepMetrics(
        step=number,
        loss=loss,
        scored_tokens=step.info.total_scored,
        tokens=step.info.total_tokens,
        frames=int(num_frames),
        epoch=step.info.epoch,
        tokens_per_s=step.info.total_tokens / step_s,
        padding_share=1.0 - step.info.total_tokens / max(1.0, num_places),
        grad_norm=grad_norm,
        learning_rate=max(rates),
        step_s=step_s,
        data_wait_s=done.data_wait_s,
        memory_bytes=memory_in_use(trainer.world.device),
        broken_samples=step.info.num_broken,
    )
    position = RunPosition(
        step=number,
        tokens=position.tokens + step.info.total_tokens,
        train_seconds=position.train_seconds + step_s,
        loss=loss,
    )
    return position, metrics, votes > 0


def _forward_backward(trainer: Trainer, step: TrainStep) -> _Forward:
    total_scored = max(1, step.info.total_scored)
    loss_sums: list[Tensor] = []
    num_frames = num_places = 0
    data_wait_s, asked_at = 0.0, time.perf_counter()
    for number, batch in enumerate(step.batches, start=1):
        data_wait_s += time.perf_counter() - asked_at
        loss_sum = _forward(trainer, batch)
        loss = for_data_parallel(loss_sum, total_scored=total_scored, world_size=trainer.world.size)
        trainer.engine.backward(loss, last=number == len(step.batches))
        loss_sums.append(loss_sum.detach())
        num_frames += len(batch.frames_fHW3)
        num_places += len(batch.input_ids_t)
        asked_at = time.perf_counter()
    return _Forward(float(torch.stack(loss_sums).sum()), num_frames, num_places, data_wait_s)


def _forward(trainer: Trainer, batch: PackedBatch) -> Tensor:
    calls = Calls()
    if trainer.stage.zero_stage == 3 and trainer.world.size > 1:
        needed = micro_step.calls_needed(batch, frames_at_once=trainer.stage.frames_at_once)
        calls = Calls(*trainer.world.maxima([*needed]))
    return micro_step.run(
        trainer.engine.module,
        batch,
        trainer.groups_by_degree[batch.degree_index],
        head_groups=trainer.stage.head_groups,
        keep_keys=trainer.stage.keep_keys,
        kernel=trainer.stage.attention_kernel,
        calls=calls,
        device=trainer.world.device,
    )


def _save(
    trainer: Trainer, position: RunPosition, writer: MetricsWriter | None, saved_step: int | None
) -> None:
    if writer is not None:
        writer.progress("saving", checkpoint_step=saved_step)
    started = time.perf_counter()
    data = trainer.loader.state(position.step)
    meta = trainer.meta.model_copy(update={"position": position, "data": data})
    folder = checkpoint.save(
        trainer.paths.checkpoints,
        trainer.engine,
        meta,
        world=trainer.world,
        keep=trainer.stage.keep_checkpoints,
    )
    if writer is not None:
        writer.progress("training", checkpoint_step=position.step)
        logger.info("saved %s in %.1f s", folder, time.perf_counter() - started)


def _check_finite(what: str, value: float, *, step: int) -> None:
    """Raise ``NumericsError`` on all ranks at once: the value is the same everywhere."""
    if not math.isfinite(value):
        raise NumericsError(
            f"the {what} became {value} in step {step}. The last checkpoint is from before. "
            "Lower optimizer.learning_rate, set optimizer.grad_clip, or look at the samples of this step"
        )
