"""One trainer process from its spec to its outcome."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Literal

from longvila.training import checkpoint, loop
from longvila.training.build import Built, build
from longvila.training.checkpoint import RunPosition
from longvila.training.export import export
from longvila.training.loop import LoopResult
from longvila.training.metrics import MetricsWriter
from longvila.training.runfiles import Outcome, Progress, read_model, write_model
from longvila.training.signals import listening
from longvila.training.spec import RunSpec, fingerprint
from longvila.training.world import World, joined

logger = logging.getLogger(__name__)

Status = Literal["complete", "stopped"]


def run(spec: RunSpec) -> Status:
    """Train, export, and write ``outcome.json`` (all of it collective)."""
    with joined(spec) as world, listening(spec.paths.stop) as stop, ExitStack() as stack:
        mark = fingerprint(spec)
        built = build(spec, world, fingerprint=mark)
        start = resume(built)
        writer = None
        if world.is_first:
            total = built.trainer.total_steps
            writer = stack.enter_context(MetricsWriter(spec.paths, total_steps=total, first_step=start.step))
            writer.progress("starting", checkpoint_step=start.step or None)
        try:
            with built.trainer.groups.naming_the_lost():  # the engine's messages too
                result = loop.run(built.trainer, start, stop=stop, writer=writer)
        except loop.NumericsError as error:
            if world.is_first:
                _write_numerics(spec, str(error), mark=mark, total_steps=built.trainer.total_steps)
            raise
        if result.status == "complete":
            if writer is not None:
                writer.progress("exporting", checkpoint_step=None)
            _export(spec, built, world, mark=mark)
        if world.is_first:
            _write_outcome(spec, result, mark=mark, total_steps=built.trainer.total_steps)
        world.barrier()
        return result.status


def resume(built: Built) -> RunPosition:
    """Put back the newest whole checkpoint of this run, if there is one (collective). Rank 0 says which."""
    trainer, world = built.trainer, built.trainer.world
    root = trainer.paths.checkpoints
    newest = None
    if world.is_first:
        checkpoint.remove_unfinished(root)
        newest = checkpoint.newest_step(root)
    step = world.max(-1 if newest is None else newest)
    if step < 0:
        return RunPosition(step=0)
    folder, meta = checkpoint.open_step(root, step)
    position = checkpoint.load(folder, meta, trainer.engine, expected=trainer.meta, rank=world.rank)
    if meta.data is not None:
        trainer.loader.check_state(meta.data)
    trainer.loader.consumed_steps = position.step
    logger.info("resumed from %s", folder)
    return position


def _export(spec: RunSpec, built: Built, world: World, *, mark: str) -> None:
    info: dict[str, object] = {
        "stage": spec.stage.name,
        "fingerprint": mark,
        "max_frames": spec.stage.max_frames,
    }
    export(
        spec.paths.export, built.trainer.engine, built.model, built.tokenizer, world=world, stage_info=info
    )


def _write_numerics(spec: RunSpec, message: str, *, mark: str, total_steps: int) -> None:
    reached = read_model(spec.paths.progress, Progress)
    write_model(
        spec.paths.outcome,
        Outcome(
            status="failed",
            fingerprint=mark,
            step=reached.step if reached else 0,
            total_steps=total_steps,
            failure="numerics",
            message=message,
        ),
    )


def _write_outcome(spec: RunSpec, result: LoopResult, *, mark: str, total_steps: int) -> None:
    position = result.position
    complete = result.status == "complete"
    write_model(
        spec.paths.outcome,
        Outcome(
            status=result.status,
            fingerprint=mark,
            step=position.step,
            total_steps=total_steps,
            loss=position.loss,
            tokens=position.tokens,
            train_seconds=position.train_seconds,
            export=str(spec.paths.export) if complete else None,
            message="" if complete else "asked to stop; a checkpoint of this step was written",
        ),
    )
