"""What one training run is: a stage, a model, where it starts, what it reads, where it writes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from longvila.config.model import ModelConfig, Settings
from longvila.config.stage import StageConfig
from longvila.errors import ConfigError, InputError
from longvila.records import content_id

TRAINER_VERSION = 1


class RunSpec(Settings):
    """One run of one stage. Its JSON in ``run_dir/spec.json`` is all that a trainer is told."""

    stage: StageConfig
    model: ModelConfig
    init_from: str = Field(description="folder of an exported checkpoint in VILA's layout")
    datasets: dict[str, str] = Field(
        description="data set name → URL of its folder of shards (…/shards/NAME)"
    )
    run_dir: str = Field(description="a local folder, or one that all nodes share")
    engine: Literal["deepspeed", "torch"] = "deepspeed"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cache_dir: str | None = Field(None, description="where measured lengths are kept; none: in run_dir")
    label: str = Field(
        "", description="a name for people where it is not simply the stage, e.g. a control run"
    )

    @model_validator(mode="after")
    def _consistent(self) -> RunSpec:
        missing = sorted({entry.dataset for entry in self.stage.mixture} - set(self.datasets))
        if missing:
            raise ValueError(f"the mixture names {missing}, but datasets has only {sorted(self.datasets)}")
        if self.engine == "torch" and self.stage.num_processes not in (None, 1):
            raise ValueError(
                f"engine=torch runs one process, but num_processes={self.stage.num_processes}. "
                "Use engine=deepspeed, or set num_processes=1"
            )
        if self.engine == "deepspeed" and self.stage.dtype == "bfloat16" and self.stage.zero_stage == 0:
            raise ValueError(
                "zero_stage=0 with dtype=bfloat16 keeps no float32 weights under DeepSpeed and drifts. "
                "Use zero_stage=1 or higher, or dtype=float32"
            )
        return self

    @property
    def paths(self) -> RunPaths:
        """The files and folders inside ``run_dir``."""
        return RunPaths(Path(self.run_dir))

    @property
    def name(self) -> str:
        """What people call this run."""
        return self.label or self.stage.name


@dataclass(frozen=True)
class RunPaths:
    """The files and folders of one run."""

    root: Path

    @property
    def spec(self) -> Path:
        """What the run is (``RunSpec``)."""
        return self.root / "spec.json"

    @property
    def launch(self) -> Path:
        """Which process runs it (``LaunchRecord``)."""
        return self.root / "launch.json"

    @property
    def lock(self) -> Path:
        """Held by the one supervisor of the run."""
        return self.root / "supervisor.lock"

    @property
    def progress(self) -> Path:
        """The step it is at (``Progress``)."""
        return self.root / "progress.json"

    @property
    def metrics(self) -> Path:
        """One JSON line per step."""
        return self.root / "metrics.jsonl"

    @property
    def outcome(self) -> Path:
        """How it ended (``Outcome``)."""
        return self.root / "outcome.json"

    @property
    def stop(self) -> Path:
        """A file that asks the trainer for a checkpoint and an end; seen by all nodes of a shared folder."""
        return self.root / "STOP"

    @property
    def checkpoints(self) -> Path:
        """Resume points: ``step-000123/`` and ``latest``."""
        return self.root / "checkpoints"

    @property
    def cache(self) -> Path:
        """What can be measured again."""
        return self.root / "cache"

    @property
    def export(self) -> Path:
        """The result, in VILA's layout."""
        return self.root / "export"

    @property
    def logs(self) -> Path:
        """Logs and error files, one folder per attempt."""
        return self.root / "logs"


_SUPERVISION = ("step_timeout_s", "max_retries", "keep_checkpoints", "checkpoint_every_steps")
_MEMORY = (
    "gradient_checkpointing",
    "keep_attention",
    "keep_keys",
    "offload_activations",
    "mlp_tiles",
    "head_groups",
    "frames_at_once",
    "attention_kernel",
)


def read_spec(path: Path) -> RunSpec:
    """Read a spec file; ``ConfigError`` names the field that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no spec at {path}. Write a RunSpec as JSON there, or use --spec"
        ) from None
    try:
        return RunSpec.model_validate_json(text)
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'spec'}: {e['msg']}" for e in error.errors())
        raise ConfigError(
            f"{path} is not a valid spec: {fields}. Mend these fields and start again"
        ) from error


def fingerprint(spec: RunSpec) -> str:
    """Return an id of everything that decides the result: settings, starting weights, data.

    Where the run writes, what it is called, and what only saves memory do not enter: a run that ran out of
    memory can go on with a switch turned on.
    """
    settings = spec.model_dump(
        mode="json", exclude={"run_dir", "init_from", "label", "device", "datasets", "cache_dir"}
    )
    for name in (*_SUPERVISION, *_MEMORY):
        settings["stage"].pop(name)
    weights = checkpoint_digest(Path(spec.init_from))
    data = {name: _dataset_digest(url, name) for name, url in sorted(spec.datasets.items())}
    return content_id(TRAINER_VERSION, settings, weights, data)


def checkpoint_digest(folder: Path) -> str:
    """Return an id of an exported checkpoint: its JSON files by content, its weights by name and size.

    The exported ``config.json`` names the run that made the weights, so equal sizes do not hide other
    weights.
    """
    if not folder.is_dir():
        raise InputError(f"init_from={folder} is not a folder. Give the export folder of an earlier stage")
    parts: list[tuple[str, int, str]] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix == ".json" else ""
        parts.append((path.relative_to(folder).as_posix(), path.stat().st_size, content))
    return content_id(parts)


def _dataset_digest(url: str, name: str) -> str:
    from longvila.data.index import open_index
    from longvila.storage import open_storage

    return open_index(open_storage(url), name, folder="").hash
