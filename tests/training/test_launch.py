"""Detached processes, found again by their identity; no trainer is needed for that."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from longvila.training import RunPaths
from longvila.training.launch import LaunchRecord, attach, living, local, poll, ranks, stop, tail
from longvila.training.launch.local import torchrun_command, trainer_environment
from longvila.training.launch.process import ProcessId, is_alive, start_detached, wait_all
from longvila.training.runfiles import read_model, write_model
from tests.training import tiny


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[RunPaths]:
    made = RunPaths(tmp_path / "run")
    made.root.mkdir()
    yield made
    stop(made, grace_s=0.0)


def _start(paths: RunPaths, script: str, *more: str) -> tuple[ProcessId, LaunchRecord]:
    """Start a stand-in for a trainer: a shell script, with a trainer's arguments."""
    command = ["/bin/sh", "-c", script, "longvila.training", str(paths.spec.resolve()), *more]
    log, code = paths.logs / "trainer.log", paths.logs / "exit_code"
    started = start_detached(command, cwd=paths.root, env=os.environ, log=log, exit_code_file=code)
    record = LaunchRecord(
        state="running",
        fingerprint="f",
        attempt=1,
        host=socket.gethostname(),
        pid=started.pid,
        create_time=started.create_time,
        submitted_at=time.time(),
        log=str(log),
        exit_code_file=str(code),
        error_file=str(paths.logs / "error.json"),
        error_folder=str(paths.logs),
    )
    write_model(paths.launch, record)
    return started, record


def test_an_exit_code_is_kept_and_the_log_is_read_on(paths: RunPaths) -> None:
    started, record = _start(paths, "echo one; sleep 0.2; echo two >&2; exit 7")
    assert poll(record).alive
    assert wait_all([started], timeout_s=5)
    assert poll(record) == (False, 7)
    first, position = tail(record, max_bytes=8)
    assert (first, position) == ("one\ntwo\n", 8)
    assert tail(record, start_bytes=4) == ("two\n", 8)


def test_a_process_has_a_session_of_its_own_and_survives_the_signals_of_ours(paths: RunPaths) -> None:
    started, record = _start(paths, "trap 'exit 3' TERM; while :; do sleep 0.05; done")
    assert os.getsid(started.pid) == started.pid != os.getsid(0)
    time.sleep(0.3)
    os.killpg(started.pid, signal.SIGTERM)  # the wrapper stays to write the exit code
    assert wait_all([started], timeout_s=5)
    assert poll(record).exit_code == 3


def test_a_number_that_was_used_again_is_another_process(paths: RunPaths) -> None:
    started, record = _start(paths, "sleep 30")
    assert is_alive(started)
    assert not is_alive(ProcessId(started.pid, started.create_time - 60))
    other = record.model_copy(update={"create_time": started.create_time - 60})
    assert not poll(other).alive


def test_a_trainer_started_by_a_supervisor_that_died_at_once_is_adopted(paths: RunPaths) -> None:
    started, record = _start(paths, "sleep 30")
    unknown = record.model_copy(update={"state": "submitting", "pid": None, "create_time": None})
    write_model(paths.launch, unknown)
    adopted = attach(paths)
    assert adopted is not None
    assert adopted.pid in {process.pid for process in living(paths)}
    assert adopted == read_model(paths.launch, LaunchRecord)
    assert started in living(paths)


def test_an_ended_trainer_is_not_joined(paths: RunPaths) -> None:
    started, _ = _start(paths, "exit 0")
    assert wait_all([started], timeout_s=5)
    assert attach(paths) is None
    assert attach(RunPaths(paths.root / "nothing")) is None


def test_stopping_asks_first_and_ends_only_what_is_of_this_run(
    paths: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_TERM_WAIT_S", 1.0)
    other = RunPaths(tmp_path / "other")
    other.root.mkdir()
    stranger, _ = _start(other, "sleep 30")
    obedient, record = _start(paths, f"while [ ! -e {paths.stop} ]; do sleep 0.05; done; exit 5")
    assert stop(paths, grace_s=10.0)
    assert poll(record).exit_code == 5
    paths.stop.unlink()
    deaf, _ = _start(paths, "trap '' TERM; while :; do sleep 0.05; done")
    assert not stop(paths, grace_s=0.2)
    assert not is_alive(deaf)
    assert is_alive(stranger)
    assert not is_alive(obedient)
    stop(other, grace_s=0.0)


def test_ranks_are_told_from_their_launcher(paths: RunPaths) -> None:
    _start(paths, "sleep 30", "torch.distributed.run")
    assert len(living(paths)) >= 2  # the wrapper and the script
    assert ranks(paths) == []
    rank, _ = _start(paths, "sleep 30")
    assert rank in ranks(paths)


def test_the_command_and_environment_of_a_trainer(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    spec = tiny.spec(paths.root, "x")
    command = torchrun_command(spec, log_dir=paths.logs)
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert "--nproc-per-node=2" in command
    assert "--max-restarts=0" in command
    assert any(option.startswith("--shutdown-timeout=") for option in command)
    assert command[-4:] == ["-m", "longvila.training", "--spec", str(spec.paths.spec.resolve())]
    _, record = _start(paths, "exit 0")
    environment = trainer_environment(spec, record)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["TORCHELASTIC_ERROR_FILE"] == record.error_file
    assert "RANK" not in environment
