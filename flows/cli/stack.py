"""Starts and watches the processes of ``longvila up``: Prefect's server and one process worker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx

from flows.cli.runtime import QUIET
from longvila.errors import InputError, MachineError
from longvila.planning import check_port

POOL = "longvila"
START_TIMEOUT_S = 180.0
END_TIMEOUT_S = 15.0


def run_stack(home: Path, *, port: int, deployments: Path, debug: bool) -> None:
    """Run server and worker until a signal, or until one of them dies (``MachineError``)."""
    deployments = deployments.absolute()
    if not deployments.is_file():
        raise InputError(f"There is no {deployments}. Start in the repository, or give --deployments FILE.")
    check_port(port, purpose="Prefect's server", mend="Give another with --port.")
    _make(home)
    environment = stack_environment(home, port)
    with _until_signal() as stopped:
        processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            processes["server"] = _start("server", ["server", "start", *_address(port)], home, environment)
            _wait_healthy(processes["server"], port, home, stopped)
            if not stopped():
                _register(deployments, home, environment, stopped)
            if not stopped():
                processes["worker"] = _start("worker", ["worker", "start", "--pool", POOL], home, environment)
                _say(port, home, debug)
            _watch(processes, home, stopped)
        finally:
            _end(processes)


def stack_environment(home: Path, port: int) -> dict[str, str]:
    """The environment of server, worker and the flows that the worker starts."""
    return {
        **os.environ,
        **QUIET,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }


def _make(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"{home} cannot be made: {error.strerror}. Choose another folder with --home."
        ) from error


def _address(port: int) -> list[str]:
    return ["--host", "127.0.0.1", "--port", str(port)]


def _start(
    name: str, arguments: list[str], home: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start one part in a session of its own, so that a Ctrl-C reaches us first and we end it in order."""
    with (home / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _wait_healthy(process: subprocess.Popen[bytes], port: int, home: Path, stopped: Stopped) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and not stopped():
        if process.poll() is not None:
            raise MachineError(
                f"Prefect's server ended at once. Its last words:\n{_last_words(home / 'server.log')}"
            )
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=2.0).status_code == 200:
                return
        time.sleep(0.3)
    if not stopped():
        raise MachineError(
            f"Prefect's server did not answer within {START_TIMEOUT_S:.0f} s. See {home / 'server.log'}."
        )


def _register(deployments: Path, home: Path, environment: dict[str, str], stopped: Stopped) -> None:
    """Make the work pool and register the deployments; both may exist already."""
    script = [sys.executable, "-m", "flows.cli.register", POOL, str(deployments), os.fspath(Path.cwd())]
    with (home / "register.log").open("wb") as log:
        process = subprocess.Popen(script, stdout=log, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None and not stopped():
            time.sleep(0.1)
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode and not stopped():
        raise MachineError(f"The deployments were not registered:\n{_last_words(home / 'register.log')}")


def _say(port: int, home: Path, debug: bool) -> None:
    lines = [
        f"Prefect's server and UI: http://127.0.0.1:{port}",
        f"worker of pool {POOL!r} is waiting; logs in {home}",
        "Ctrl-C ends them.",
    ]
    if debug:
        lines.append(f"PREFECT_API_URL=http://127.0.0.1:{port}/api PREFECT_HOME={home}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _watch(processes: dict[str, subprocess.Popen[bytes]], home: Path, stopped: Stopped) -> None:
    while not stopped():
        for name, process in processes.items():
            if process.poll() is not None:
                said = _last_words(home / f"{name}.log")
                raise MachineError(
                    f"The {name} ended with code {process.returncode}. Its last words:\n{said}"
                )
        time.sleep(0.3)


def _end(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    """End the worker before the server, politely, then with force. Detached trainers are not touched."""
    for name in reversed(list(processes)):
        process = processes[name]
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Stopped:
    """Whether a signal asked for the end."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self) -> bool:
        """Whether to end."""
        return self._asked

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the first asks for the end, the second interrupts."""
        del number, frame
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True


@contextmanager
def _until_signal() -> Iterator[Stopped]:
    """Handle SIGINT and SIGTERM for the block. Children start with both at their default."""
    stopped = Stopped()
    before = {number: signal.signal(number, stopped.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_words(path: Path, *, lines: int = 12) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
