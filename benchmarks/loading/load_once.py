"""``python -m benchmarks.loading.load_once JSON``: one loader goes through samples, in a process of its own.

The process writes each key as it comes, and every few samples a checkpoint. It can be told to kill itself.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from importlib import import_module, util
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.loading.loaders import LOADERS
from benchmarks.loading.samples import Shape


class Pass(NamedTuple):
    """What going through samples took."""

    keys: list[str]
    num_frames: int
    cpu_s: float  # without imports
    wall_s: float
    first_cpu_s: float  # from the loader's making to its first sample
    first_wall_s: float


class Task(NamedTuple):
    """What a process is to do."""

    loader: str
    folder: str
    shape: Shape
    num_samples: int
    sp_size: int = 1
    checkpoint: str = ""  # a file to start from and to write to
    checkpoint_every: int = 10
    log: str = ""
    kill_at: int = 0  # samples


def load_once(task: Task) -> Pass | None:
    """Run a task in a new process; None when it was killed, as it was told."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.loading.load_once", json.dumps(task)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if task.kill_at and answer.returncode == -signal.SIGKILL:
        return None
    if answer.returncode:
        raise RuntimeError(f"{task.loader} failed:\n{answer.stderr[-2000:]}")
    return Pass(*json.loads(answer.stdout.splitlines()[-1]))


def missing(loader: str) -> str:
    """Say which package a loader lacks here; empty for none."""
    names = [name.partition(".")[0] for name in LOADERS[loader][1]]
    return next((f"{name} is not installed" for name in names if util.find_spec(name) is None), "")


def run(task: Task) -> Pass:
    """Go through the samples here."""
    loader, needs = LOADERS[task.loader]
    for module in needs:
        import_module(module)
    start = Path(task.checkpoint).read_bytes() if task.checkpoint and Path(task.checkpoint).is_file() else b""
    keys: list[str] = []
    num_frames, first = 0, (0.0, 0.0)
    began = _clock()
    samples = loader(Path(task.folder), Shape(*task.shape), start, task.sp_size, 4)
    for loaded in samples:
        if not keys:
            first = _since(began)
        keys.append(loaded.key)
        num_frames += loaded.num_frames
        if task.log:
            with Path(task.log).open("a") as log:
                log.write(f"{loaded.key}\n")
        if task.checkpoint and len(keys) % task.checkpoint_every == 0:
            part = Path(f"{task.checkpoint}.part")
            part.write_bytes(loaded.save())
            part.replace(task.checkpoint)
        if task.kill_at == len(keys):
            os.kill(os.getpid(), signal.SIGKILL)
        if len(keys) == task.num_samples:
            break
    cpu_s, wall_s = _since(began)
    return Pass(keys, num_frames, cpu_s, wall_s, *first)


def _clock() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, time.perf_counter()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    cpu, wall = _clock()
    return cpu - began[0], wall - began[1]


def main(given: list[Any]) -> None:
    """Run a task and print what it took as JSON."""
    print(json.dumps(run(Task(*given))), flush=True)
    os._exit(0)  # threads of a loader that is left in the middle are not waited for


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
