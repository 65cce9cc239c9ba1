"""What is written down of a started trainer, so that any later supervisor can find it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from longvila.training.runfiles import RunFile


class LaunchRecord(RunFile):
    """One started trainer. A process is known by its id *and* its start time: ids are used again."""

    launcher: Literal["local"] = "local"
    state: Literal["submitting", "running"]
    fingerprint: str
    attempt: int = Field(ge=1)
    host: str
    pid: int | None = None
    create_time: float | None = Field(default=None, description="of the process, seconds since the epoch")
    command: tuple[str, ...] = ()
    submitted_at: float
    log: str = Field(description="stdout and stderr of all ranks of this host")
    exit_code_file: str
    error_file: str = Field(description="torchrun's copy of the first failure")
    error_folder: str = Field(description="per-rank error files lie below this folder")

    @property
    def log_path(self) -> Path:
        """The log file."""
        return Path(self.log)


class JobState(NamedTuple):
    """What a poll found."""

    alive: bool
    exit_code: int | None
