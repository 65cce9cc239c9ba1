"""What ranks and torchrun leave behind (recorded from real runs) → why the trainer ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longvila.training.classify import RankError, classify, read_errors
from longvila.training.runfiles import FailureClass, Outcome

KILLED = """
Root Cause (first observed failure):
[0]:
  time      : 2026-11-23_03:27:08
  rank      : 0 (local_rank: 0)
  exitcode  : -9 (pid: 13104)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 13104
"""


def _error(name: str, message: str, timestamp: float = 1.0) -> RankError:
    return RankError(rank="0", timestamp=timestamp, name=name, message=message)


@pytest.mark.parametrize(
    ("name", "message", "kind", "retryable"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", "oom", False),
        ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory", "oom", False),
        ("DistBackendError", "NCCL error in: ProcessGroupNCCL.cpp:1234", "lost_peer", True),
        ("RuntimeError", "[gloo/transport/tcp/pair.cc] Connection closed by peer", "lost_peer", True),
        ("DistNetworkError", "The client socket has timed out after 60000ms", "lost_peer", True),
        ("NumericsError", "the loss became nan in step 7", "numerics", False),
        ("ConfigError", "ulysses_degree=3 does not divide", "config", False),
        ("ModuleNotFoundError", "No module named 'flash_attn'", "config", False),
        ("InputError", "shard-000001.tar is damaged", "data", False),
        ("OSError", "[Errno 28] No space left on device", "storage", False),
        ("RuntimeError", "[fail at inline_container.cc:672] . unexpected pos 3 vs 2", "storage", False),
        ("MachineError", "The disk is full: cannot write x. Free space", "storage", False),
        ("OSError", "[Errno 116] Stale file handle", "storage", True),
        ("NetworkError", "503 from s3", "storage", True),
        ("Signal 9 (SIGKILL) received by PID 7", "", "lost_peer", True),
        ("KeyError", "'frames'", "bug", False),
        ("SignalException", "Process 12 got signal: 15", "preempted", True),
    ],
)  # fmt: skip
def test_an_exception_has_a_class(name: str, message: str, kind: FailureClass, retryable: bool) -> None:
    failure = classify(outcome=None, errors=[_error(name, message)], log_tail="", exit_code=1)
    assert (failure.kind, failure.retryable) == (kind, retryable)
    assert failure.mend


def test_the_earliest_error_is_the_cause() -> None:
    errors = [
        _error("RuntimeError", "Connection closed by peer", timestamp=12.0),
        _error("ConfigError", "wrong", timestamp=11.0),
    ]
    assert classify(outcome=None, errors=errors, log_tail=KILLED, exit_code=1).kind == "config"


@pytest.mark.parametrize(
    ("log_tail", "exit_code", "kind"),
    [
        (KILLED, 1, "lost_peer"),
        (KILLED.replace("-9", "-15").replace("Signal 9 (SIGKILL)", "Signal 15 (SIGTERM)"), 1, "preempted"),
        ("", None, "lost_peer"),
        ("", 137, "lost_peer"),
        ("", 143, "preempted"),
        ("Segfault nowhere to be seen", 1, "bug"),
    ],
)
def test_without_an_error_file_signals_and_codes_speak(
    log_tail: str, exit_code: int | None, kind: FailureClass
) -> None:
    assert classify(outcome=None, errors=[], log_tail=log_tail, exit_code=exit_code).kind == kind


def test_an_outcome_speaks_first() -> None:
    base = Outcome(status="stopped", fingerprint="f", step=3, total_steps=9)
    assert classify(outcome=base, errors=[], log_tail=KILLED, exit_code=1).kind == "preempted"
    failed = base.model_copy(update={"status": "failed", "failure": "numerics", "message": "nan"})
    assert classify(outcome=failed, errors=[], log_tail="", exit_code=1).kind == "numerics"
    assert classify(outcome=base, errors=[], log_tail="", exit_code=None, hung=True).kind == "hang"


def test_a_full_disk_is_told_by_the_disk() -> None:
    failure = classify(outcome=None, errors=[], log_tail="", exit_code=None, free_bytes=100)
    assert (failure.kind, failure.retryable) == ("storage", False)


def test_error_files_are_read_wherever_torchrun_put_them(tmp_path: Path) -> None:
    def write(path: Path, message: object) -> None:
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"message": message}))

    extra = {"py_callstack": "Traceback …", "timestamp": "1795404000"}
    write(tmp_path / "r/attempt_0/1/error.json", {"message": "ValueError: late: 2", "extraInfo": extra})
    write(tmp_path / "r/attempt_0/0/error.json", "Signal 9 (SIGKILL) received by PID 1")
    (tmp_path / "r/attempt_0/2").mkdir()
    (tmp_path / "r/attempt_0/2/error.json").write_text('{"mess')
    errors = read_errors(tmp_path / "r", tmp_path / "none.json")
    assert [error.name for error in errors] == ["ValueError", "Signal 9 (SIGKILL) received by PID 1"]
    assert errors[0].message == "late: 2"
