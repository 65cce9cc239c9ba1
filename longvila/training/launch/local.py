"""Trainers on this machine: torchrun in a session of its own, logging to files."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

from longvila.errors import MachineError
from longvila.training.launch import process
from longvila.training.launch.process import ProcessId
from longvila.training.launch.record import JobState, LaunchRecord
from longvila.training.runfiles import read_model, write_model
from longvila.training.spec import RunPaths, RunSpec

logger = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 600  # how long torchrun lets ranks save after SIGTERM; its own default is 30
_TERM_WAIT_S = 10.0
_MODULE = "longvila.training"
_LAUNCHER = "torch.distributed.run"


def submit(spec: RunSpec, *, fingerprint: str, attempt: int) -> LaunchRecord:
    """Start the trainer of ``spec`` detached, and write ``launch.json`` before and after.

    ``spec.json`` must lie in the run folder already. Raises ``MachineError`` when the process cannot be
    started.
    """
    paths = spec.paths
    folder = paths.logs / f"attempt-{attempt:02d}"
    folder.mkdir(parents=True, exist_ok=True)
    record = LaunchRecord(
        state="submitting",
        fingerprint=fingerprint,
        attempt=attempt,
        host=socket.gethostname(),
        command=tuple(torchrun_command(spec, log_dir=folder / "ranks")),
        submitted_at=time.time(),
        log=str(folder / "trainer.log"),
        exit_code_file=str(folder / "exit_code"),
        error_file=str(folder / "error.json"),
        error_folder=str(folder / "ranks"),
    )
    write_model(paths.launch, record)
    try:
        started = process.start_detached(
            record.command,
            cwd=paths.root,
            env=trainer_environment(spec, record),
            log=record.log_path,
            exit_code_file=Path(record.exit_code_file),
        )
    except OSError as error:
        raise MachineError(
            f"the trainer of {spec.name} could not be started: {error}. "
            f"Check that {record.command[0]} runs and that {folder} is writable"
        ) from error
    running = record.model_copy(
        update={"state": "running", "pid": started.pid, "create_time": started.create_time}
    )
    write_model(paths.launch, running)
    logger.info("started the trainer of %s: process %d, log %s", spec.name, started.pid, running.log)
    return running


def attach(paths: RunPaths) -> LaunchRecord | None:
    """Return the record of a trainer of this run that still lives, else none.

    A supervisor that died between starting a trainer and writing down its process id is mended here: the
    trainer is found by the spec it was started with.
    """
    record = read_model(paths.launch, LaunchRecord)
    if record is None or record.host != socket.gethostname():
        return None
    if poll(record).alive:
        return record
    if record.pid is not None:
        return None
    for found in living(paths):
        adopted = record.model_copy(
            update={"state": "running", "pid": found.pid, "create_time": found.create_time}
        )
        write_model(paths.launch, adopted)
        return adopted
    return None


def living(paths: RunPaths) -> list[ProcessId]:
    """All processes of this run on this machine: launcher, torchrun, ranks and their loader workers."""
    return process.with_arguments(_MODULE, str(paths.spec.resolve()))


def ranks(paths: RunPaths) -> list[ProcessId]:
    """The trainer processes of this run on this machine, without the launcher and torchrun."""
    return process.with_arguments(_MODULE, str(paths.spec.resolve()), without=_LAUNCHER)


def poll(record: LaunchRecord) -> JobState:
    """Whether the recorded trainer runs, and its exit code once it has ended."""
    recorded = _process_of(record)
    if recorded is not None and process.is_alive(recorded):
        return JobState(alive=True, exit_code=None)
    return JobState(alive=False, exit_code=_read_exit_code(Path(record.exit_code_file)))


def tail(record: LaunchRecord, *, start_bytes: int = 0, max_bytes: int = 65_536) -> tuple[str, int]:
    """Return what was logged from ``start_bytes`` on (at most the last ``max_bytes``), and where to go on."""
    try:
        size = record.log_path.stat().st_size
    except FileNotFoundError:
        return "", 0
    with record.log_path.open("rb") as file:
        file.seek(max(min(start_bytes, size), size - max_bytes))
        text = file.read().decode("utf-8", errors="replace")
        return text, file.tell()


def stop(paths: RunPaths, *, grace_s: float) -> bool:
    """Ask for a checkpoint and an end; after ``grace_s`` end by force. True when no force was needed.

    First the ``STOP`` file, which each rank looks at after each step. Whatever still runs after the grace
    gets SIGTERM, then SIGKILL. Only processes that were started with this run's spec are ever touched.
    """
    request_stop(paths)
    if process.wait_all(living(paths), timeout_s=grace_s):
        return True
    remaining = living(paths)
    logger.warning(
        "%d processes of %s did not end in %.0f s; ending them", len(remaining), paths.root, grace_s
    )
    process.send(remaining, signal.SIGTERM)
    process.wait_all(remaining, timeout_s=_TERM_WAIT_S)
    kill(paths)
    return False


def request_stop(paths: RunPaths) -> None:
    """Write the ``STOP`` file: save a checkpoint after the present step, and end."""
    paths.root.mkdir(parents=True, exist_ok=True)
    paths.stop.touch()


def kill(paths: RunPaths) -> None:
    """End every process of this run at once."""
    remaining = living(paths)
    process.send(remaining, signal.SIGKILL)
    process.wait_all(remaining, timeout_s=_TERM_WAIT_S)


def dump_stacks(paths: RunPaths) -> None:
    """Make every rank write the Python stacks of all its threads into the log (they listen to SIGUSR1)."""
    process.send(ranks(paths), signal.SIGUSR1)


def torchrun_command(spec: RunSpec, *, log_dir: Path) -> list[str]:
    """The command line that runs the trainer on all processes of this machine."""
    count = 1 if spec.engine == "torch" else spec.stage.num_processes
    processes = str(count) if count is not None else ("gpu" if uses_cuda(spec) else "1")
    options = [
        "--standalone",
        "--local-addr=127.0.0.1",
        f"--nproc-per-node={processes}",
        "--max-restarts=0",
        f"--log-dir={log_dir}",
    ]
    if _torchrun_knows("--shutdown-timeout"):
        options.append(f"--shutdown-timeout={SHUTDOWN_TIMEOUT_S}")
    module = ["-m", _MODULE, "--spec", str(spec.paths.spec.resolve())]
    return [sys.executable, "-m", _LAUNCHER, *options, *module]


def trainer_environment(spec: RunSpec, record: LaunchRecord) -> dict[str, str]:
    """The environment of a trainer: ours, plus what keeps its libraries quiet and out of each other's way."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TORCHELASTIC_ERROR_FILE": record.error_file}
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A killed compilation leaves a lock on which later runs wait for ever: each run has its own folder.
    environment.setdefault("TORCH_EXTENSIONS_DIR", str(spec.paths.root / "torch_extensions"))
    environment.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    if not uses_cuda(spec):
        environment.setdefault("OMP_NUM_THREADS", "1")
        environment.setdefault("DS_ACCELERATOR", "cpu")
        # An optimizer of DeepSpeed's that we do not use compiles itself at import: 1.4 s for nothing.
        environment.setdefault("TORCHDYNAMO_DISABLE", "1")
    return environment


def uses_cuda(spec: RunSpec) -> bool:
    """Whether the trainer will run on GPUs, answered without loading torch."""
    return spec.device == "cuda" or (spec.device == "auto" and Path("/dev/nvidiactl").exists())


def _process_of(record: LaunchRecord) -> ProcessId | None:
    if record.pid is None or record.create_time is None:
        return None
    return ProcessId(record.pid, record.create_time)


def _torchrun_knows(option: str) -> bool:
    """Whether the installed torchrun has ``option``; read from its source, as loading torch takes seconds."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        raise MachineError("torch is not installed here. Install it, or run from the environment that has it")
    return option in (Path(torch.origin).parent / "distributed" / "run.py").read_text(encoding="utf-8")


def _read_exit_code(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
