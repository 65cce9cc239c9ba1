"""The small JSON files by which a trainer and its supervisor know of each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longvila.storage import files as storage_files

FailureClass = Literal[
    "oom", "lost_peer", "hang", "preempted", "data", "numerics", "config", "bug", "storage"
]
ModelT = TypeVar("ModelT", bound=BaseModel)


class RunFile(BaseModel):
    """The base of all run files: frozen; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Progress(RunFile):
    """Where a trainer is, written by rank 0 after each step."""

    step: int = Field(description="optimizer steps done")
    total_steps: int
    loss: float | None = Field(default=None, description="per scored token, of the last step")
    grad_norm: float | None = None
    learning_rate: float | None = None
    tokens: int = Field(0, description="tokens seen by the whole run, padding not counted")
    tokens_per_s: float = 0.0
    eta_s: float | None = None
    checkpoint_step: int | None = Field(default=None, description="the newest whole checkpoint")
    phase: Literal["starting", "training", "saving", "exporting"] = "training"
    updated_at: float = Field(description="seconds since the epoch")


class Outcome(RunFile):
    """How a trainer ended, written once by rank 0 as its last act."""

    status: Literal["complete", "stopped", "failed"]
    fingerprint: str
    step: int
    total_steps: int
    loss: float | None = None
    tokens: int = 0
    train_seconds: float = 0.0
    export: str | None = None
    failure: FailureClass | None = None
    message: str = ""


class StageOutcome(RunFile):
    """What the supervisor hands on when a stage is complete."""

    stage: str
    run_dir: str
    export_dir: str
    fingerprint: str
    step: int
    loss: float | None
    tokens: int
    train_seconds: float
    reused: bool = Field(description="the run was complete before, and nothing was started")
    attempts: int = Field(description="trainers that this call started")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` so that readers see the old or the new; not forced to the disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def write_model(path: Path, model: BaseModel, *, durable: bool = True) -> None:
    """Write a pydantic model as JSON, whole or absent; ``durable`` waits until the disk has it."""
    text = model.model_dump_json(indent=2) + "\n"
    if durable:
        storage_files.write_text(path, text)
    else:
        write_text(path, text)


def read_model(path: Path, cls: type[ModelT]) -> ModelT | None:
    """Read a JSON file as ``cls``; none when it is absent or was written by something else."""
    try:
        return cls.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None
