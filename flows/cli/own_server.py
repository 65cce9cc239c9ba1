"""A short-lived Prefect server for one flow, where the user runs none.

It lives in a session of its own: Ctrl-C on a terminal reaches the flow, which still needs the server to end
well. For the same reason it outlives a flow that was killed; the workspace's next flow ends it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from longvila.errors import MachineError
from longvila.planning import free_port

if TYPE_CHECKING:
    import psutil

logger = logging.getLogger(__name__)
SERVER = "prefect.server.api.server:create_app"
WAIT_S = 5.0
START_TIMEOUT_S = 120.0
# What Prefect gives the server that it starts itself: no UI, no scheduler, settings as they are.
SERVER_ENVIRONMENT = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


@contextmanager
def own_server(home: Path) -> Iterator[None]:
    """Run a server on loopback for the length of the block, and name it in ``PREFECT_API_URL``.

    Has to be entered before Prefect is imported. Whoever comes first to ``home`` ends servers that nobody
    holds any more. A second flow in the same workspace runs beside the first, on a server that Prefect
    starts. Raises ``MachineError`` when the server does not come up.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "flows.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield
            return
        end_leftover_servers(home)
        port = free_port()
        server = _start(home, port)
        try:
            _wait_healthy(server, home, port)
            os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
            yield
        finally:
            os.environ.pop("PREFECT_API_URL", None)
            _end(server)


def _start(home: Path, port: int) -> subprocess.Popen[bytes]:
    import importlib.util

    prefect = importlib.util.find_spec("prefect")  # found, not loaded: it reads its settings when it is
    if prefect is None or prefect.origin is None:
        raise MachineError("Prefect is not installed here. Run: make install")
    where = ["--app-dir", str(Path(prefect.origin).parent.parent), "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "uvicorn", *where, "--factory", SERVER, "--log-level", "error"]
    with (home / "server.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--lifespan", "on"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **SERVER_ENVIRONMENT},
            start_new_session=True,
        )


def _wait_healthy(server: subprocess.Popen[bytes], home: Path, port: int) -> None:
    import httpx

    deadline = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=2.0).status_code == 200:
                return
        time.sleep(0.1)
    raise MachineError(
        f"Prefect's server for this run did not come up. Its log: {home / 'server.log'}. "
        "Run the flow again, or start a server with 'longvila up' and set PREFECT_API_URL."
    )


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(WAIT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def end_leftover_servers(home: Path) -> int:
    """End the servers that were started for ``home``; return how many there were."""
    import psutil

    found = [process for process in psutil.process_iter(["pid", "cmdline"]) if _serves(process, home)]
    for process in found:
        logger.info("ending the server of a flow that was killed (process %d)", process.pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=WAIT_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return len(found)


def _serves(process: psutil.Process, home: Path) -> bool:
    import psutil

    try:
        return SERVER in (process.info["cmdline"] or []) and process.environ().get("PREFECT_HOME") == str(
            home
        )
    except psutil.Error:
        return False  # gone, or another user's
