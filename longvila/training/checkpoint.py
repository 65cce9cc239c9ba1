"""Resume points of one run: whole or absent, the newest few kept.

``checkpoints/step-000123/`` holds the engine's shards, each rank's random state and ``meta.json``, which
names every file with its size. It is made as ``step-000123.tmp`` and renamed; ``latest`` is written last.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from longvila.data import LoaderState
from longvila.errors import ConfigError, InputError
from longvila.storage.files import write_text
from longvila.training.engine import Engine
from longvila.training.runfiles import RunFile, read_model, write_model
from longvila.training.world import World

logger = logging.getLogger(__name__)

_META = "meta.json"
_LATEST = "latest"


class RunPosition(RunFile):
    """Where a run stands: all that is needed to go on, besides weights, optimizer and random state."""

    step: int = Field(description="optimizer steps done")
    tokens: int = 0
    train_seconds: float = 0.0
    loss: float | None = None


class CheckpointMeta(RunFile):
    """What a checkpoint is, and the files that make it whole."""

    position: RunPosition
    data: LoaderState | None = Field(default=None, description="where the data stands")
    fingerprint: str
    engine: str
    zero_stage: int
    world_size: int
    files: dict[str, int] = Field(default_factory=dict, description="path below the checkpoint → bytes")


def save(root: Path, engine: Engine, meta: CheckpointMeta, *, world: World, keep: int) -> Path:
    """Write a checkpoint of this step (collective); returns its folder."""
    final = _folder(root, meta.position.step)
    beside = root / f"{final.name}.tmp"
    if world.is_first:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    world.barrier()
    engine.save(beside)
    torch.save(_random_state(), beside / _random_file(world.rank))
    world.barrier()
    if world.is_first:
        sizes = _sync_files(beside)
        write_model(beside / _META, meta.model_copy(update={"files": sizes}))
        if final.exists():
            shutil.rmtree(final)
        beside.replace(final)
        write_text(root / _LATEST, final.name)
        _remove_old(root, keep=keep)
    world.barrier()
    return final


def remove_unfinished(root: Path) -> None:
    """Remove what a trainer that was killed while saving left behind."""
    for folder in root.glob("step-*.tmp"):
        shutil.rmtree(folder)


def newest_step(root: Path) -> int | None:
    """Return the step of the newest whole checkpoint; a damaged one is passed over for the one before."""
    for folder in sorted(root.glob("step-*[0-9]"), reverse=True):
        meta = read_model(folder / _META, CheckpointMeta)
        if meta is not None and all(_size(folder / name) == size for name, size in meta.files.items()):
            return meta.position.step
        logger.warning("%s is damaged and is passed over", folder)
    return None


def open_step(root: Path, step: int) -> tuple[Path, CheckpointMeta]:
    """Return the folder of one step's checkpoint and what it is."""
    folder = _folder(root, step)
    meta = read_model(folder / _META, CheckpointMeta)
    if meta is None:
        raise InputError(
            f"{folder / _META} cannot be read here. All nodes must see the same run folder: check its mount"
        )
    return folder, meta


def load(
    folder: Path, meta: CheckpointMeta, engine: Engine, *, expected: CheckpointMeta, rank: int
) -> RunPosition:
    """Put weights, optimizer and random state back (collective); returns where the run stands.

    Raises ``ConfigError`` when the checkpoint belongs to another run or another layout of processes.
    """
    if meta.fingerprint != expected.fingerprint:
        raise ConfigError(
            f"{folder} was made with other settings, starting weights or data. "
            "Use a new run folder, or put the settings back as they were"
        )
    layout = (meta.engine, meta.zero_stage, meta.world_size)
    wanted = (expected.engine, expected.zero_stage, expected.world_size)
    if layout != wanted:
        raise ConfigError(
            f"{folder} was written by engine={layout[0]}, zero_stage={layout[1]} on {layout[2]} processes; "
            f"this run has engine={wanted[0]}, zero_stage={wanted[1]} on {wanted[2]}. "
            "Resume on the same layout, or use a new run folder"
        )
    engine.load(folder)
    try:
        state = torch.load(folder / _random_file(rank), weights_only=True)
    except FileNotFoundError:
        raise InputError(
            f"{folder} lacks the random state of rank {rank}. Remove it to use an older one"
        ) from None
    _set_random_state(state)
    return meta.position


def _folder(root: Path, step: int) -> Path:
    return root / f"step-{step:06d}"


def _random_file(rank: int) -> str:
    return f"random-{rank:05d}.pt"


def _random_state() -> dict[str, Tensor | None]:
    """The state of torch's generators; ours are made from seeds that are passed on, and need no saving."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Tensor | None]) -> None:
    if state["cpu"] is not None:
        torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _sync_files(folder: Path) -> dict[str, int]:
    """Make the disk have every file below ``folder``; returns their sizes."""
    sizes: dict[str, int] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes


def _remove_old(root: Path, *, keep: int) -> None:
    for folder in sorted(root.glob("step-*[0-9]"))[:-keep]:
        shutil.rmtree(folder)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
