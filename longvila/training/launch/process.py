"""Processes by their identity: alive, related, asked to end, ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

logger = logging.getLogger(__name__)

# Runs the command, then writes its exit code. The traps keep the shell alive when the whole group is
# signalled; they are reset in the child, so the command itself sees the signals.
_WRAPPER = """
trap : HUP INT TERM USR1 USR2
file=$1; shift
"$@"
printf %s "$?" >"$file.tmp" && mv "$file.tmp" "$file"
"""
_CREATE_TIME_TOLERANCE_S = 0.02  # psutil derives it from clock ticks


class ProcessId(NamedTuple):
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    create_time: float


def start_detached(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, exit_code_file: Path
) -> ProcessId:
    """Start ``command`` in its own session, so that it outlives us; its output goes to ``log``.

    No pipe leads to us: a trainer must not die of a reader that is gone.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _WRAPPER, "longvila-trainer", str(exit_code_file), *command],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return ProcessId(process.pid, psutil.Process(process.pid).create_time())


def is_alive(process_id: ProcessId) -> bool:
    """Whether exactly this process runs (a zombie does not)."""
    return _find(process_id) is not None


def with_arguments(*arguments: str, without: str | None = None) -> list[ProcessId]:
    """All other running processes that were started with each of ``arguments``, and not with ``without``."""
    found: list[ProcessId] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            started_so = all(argument in command for argument in arguments) and without not in command
            if started_so and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(ProcessId(process.pid, process.create_time()))
    return found


def send(process_ids: Sequence[ProcessId], number: signal.Signals) -> None:
    """Send a signal to each of the processes that still runs."""
    for process_id in process_ids:
        process = _find(process_id)
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def wait_all(process_ids: Sequence[ProcessId], *, timeout_s: float) -> bool:
    """Wait until none of the processes runs; false when some still do after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while any(is_alive(process_id) for process_id in process_ids):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def _find(process_id: ProcessId) -> psutil.Process | None:
    try:
        process = psutil.Process(process_id.pid)
        same = abs(process.create_time() - process_id.create_time) <= _CREATE_TIME_TOLERANCE_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
