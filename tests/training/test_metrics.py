from __future__ import annotations

import json
import struct
from pathlib import Path

import torch

from longvila.training import Progress, RunPaths
from longvila.training.metrics import MetricsWriter, StepMetrics, memory_in_use
from longvila.training.runfiles import read_model


def _metrics(step: int) -> StepMetrics:
    return StepMetrics(
        step=step,
        loss=1.5,
        scored_tokens=3,
        tokens=10,
        frames=2,
        epoch=0.1,
        tokens_per_s=100.0,
        padding_share=0.0,
        grad_norm=0.5,
        learning_rate=1e-3,
        step_s=0.1,
        data_wait_s=0.0,
        memory_bytes=memory_in_use(torch.device("cpu")),
    )


def test_steps_that_run_again_are_written_once(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    with MetricsWriter(paths, total_steps=5, first_step=0) as writer:
        for step in (1, 2, 3):
            writer.write(_metrics(step), tokens=10 * step, checkpoint_step=None)
    with paths.metrics.open("a") as file:
        file.write('{"step": 4, "lo')  # killed in the middle of a line
    with MetricsWriter(paths, total_steps=5, first_step=2) as writer:
        writer.write(_metrics(3), tokens=30, checkpoint_step=2)
    lines = [json.loads(line) for line in paths.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[0]["memory_bytes"] > 2**20


def test_progress_says_where_the_run_is(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    with MetricsWriter(paths, total_steps=4, first_step=0) as writer:
        writer.progress("starting", checkpoint_step=None)
        started = read_model(paths.progress, Progress)
        writer.write(_metrics(2), tokens=20, checkpoint_step=1)
        running = read_model(paths.progress, Progress)
    assert started is not None
    assert running is not None
    assert (started.step, started.phase, started.loss, started.eta_s) == (0, "starting", None, None)
    assert (running.step, running.loss, running.tokens, running.checkpoint_step) == (2, 1.5, 20, 1)
    assert running.eta_s is not None
    assert running.eta_s >= 0


def test_tensorboard_gets_the_scalars(tmp_path: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event

    paths = RunPaths(tmp_path)
    with MetricsWriter(paths, total_steps=4, first_step=0) as writer:
        writer.write(_metrics(1), tokens=10, checkpoint_step=None)
    data = next((paths.logs / "tensorboard").iterdir()).read_bytes()
    values: dict[str, float] = {}
    while data:  # records: length, its checksum, the event, its checksum
        (size,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + size])
        values.update({value.tag: value.simple_value for value in event.summary.value})
        data = data[16 + size :]
    assert values["train/loss"] == 1.5
    assert values["train/tokens"] == 10
    assert "train/step" not in values
