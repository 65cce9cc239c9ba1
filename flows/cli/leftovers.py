"""Prefect's own short-lived server outlives a flow that was killed; the workspace's next flow ends it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

logger = logging.getLogger(__name__)
SERVER = "prefect.server.api.server:create_app"
WAIT_S = 5.0


@contextmanager
def own_server(home: Path) -> Iterator[None]:
    """Hold ``home`` for the length of the block; whoever comes first ends servers that nobody holds any more.

    A second flow in the same workspace runs beside the first and ends nothing.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "flows.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield
            return
        end_leftover_servers(home)
        yield


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
