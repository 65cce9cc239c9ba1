"""What is written down of every step: a JSON line, TensorBoard scalars, and the progress file."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple

import torch

from longvila.training.runfiles import Progress, write_model
from longvila.training.spec import RunPaths

logger = logging.getLogger(__name__)

_HIDDEN_IN_TENSORBOARD = frozenset({"step", "time"})
_FLUSH_EVERY_S = 10


class StepMetrics(NamedTuple):
    """One optimizer step, over the whole world. Times are rank 0's."""

    step: int
    loss: float
    scored_tokens: int
    tokens: int
    frames: int
    epoch: float
    tokens_per_s: float
    padding_share: float
    grad_norm: float
    learning_rate: float
    step_s: float
    data_wait_s: float
    memory_bytes: int
    broken_samples: int = 0


def memory_in_use(device: torch.device) -> int:
    """Peak memory of this process in bytes: of the GPU where there is one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class MetricsWriter:
    """Writes one step after another. After a resume, lines of steps that are run again are cut off first."""

    def __init__(self, paths: RunPaths, *, total_steps: int, first_step: int) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        _cut_after(paths.metrics, step=first_step)
        self._paths = paths
        self._total_steps = total_steps
        self._started = time.monotonic()
        self._first_step = first_step
        self._last: StepMetrics | None = None
        self._tokens = 0
        self._lines = paths.metrics.open("a", encoding="utf-8")
        self._events = EventFileWriter(str(paths.logs / "tensorboard"), flush_secs=_FLUSH_EVERY_S)

    def write(self, metrics: StepMetrics, *, tokens: int, checkpoint_step: int | None) -> None:
        """Write one step; ``tokens`` counts those of the whole run."""
        self._last, self._tokens = metrics, tokens
        self._lines.write(json.dumps({**metrics._asdict(), "time": round(time.time(), 3)}) + "\n")
        self._lines.flush()
        self._write_events(metrics)
        self.progress("training", checkpoint_step=checkpoint_step)

    def progress(
        self, phase: Literal["starting", "training", "saving", "exporting"], *, checkpoint_step: int | None
    ) -> None:
        """Write ``progress.json``."""
        last = self._last
        step = last.step if last else self._first_step
        write_model(
            self._paths.progress,
            Progress(
                step=step,
                total_steps=self._total_steps,
                loss=last.loss if last else None,
                grad_norm=last.grad_norm if last else None,
                learning_rate=last.learning_rate if last else None,
                tokens=self._tokens,
                tokens_per_s=last.tokens_per_s if last else 0.0,
                eta_s=self._eta_s(step),
                checkpoint_step=checkpoint_step,
                phase=phase,
                updated_at=time.time(),
            ),
            durable=False,
        )

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        self._lines.close()
        self._events.close()

    def _eta_s(self, step: int) -> float | None:
        done = step - self._first_step
        if done <= 0:
            return None
        return (time.monotonic() - self._started) / done * (self._total_steps - step)

    def _write_events(self, metrics: StepMetrics) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        values = [
            Summary.Value(tag=f"train/{name}", simple_value=float(value))
            for name, value in metrics._asdict().items()
            if name not in _HIDDEN_IN_TENSORBOARD
        ]
        self._events.add_event(Event(wall_time=time.time(), step=metrics.step, summary=Summary(value=values)))


def _cut_after(path: Path, *, step: int) -> None:
    """Drop the lines of steps after ``step`` and a half-written last line: they are about to be run again."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
