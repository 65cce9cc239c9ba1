"""Ports: whether one is free, and who has it when it is not."""

from __future__ import annotations

import socket
from contextlib import suppress

from longvila.errors import MachineError

LOOPBACK = "127.0.0.1"


def is_free(port: int, *, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on ``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(*, host: str = LOOPBACK) -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def check_port(port: int, *, purpose: str, mend: str, host: str = LOOPBACK) -> None:
    """Raise ``MachineError`` when ``port`` is taken, naming its owner where the system tells."""
    if not 0 < port < 65536:
        raise MachineError(f"Port {port} for {purpose} is not a port. Give one from 1 to 65535. {mend}")
    if not is_free(port, host=host):
        raise MachineError(f"Port {port} for {purpose} is in use{_owner(port)}. {mend}")


def _owner(port: int) -> str:
    import psutil

    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                name = psutil.Process(connection.pid).name() if connection.pid else "another user's process"
                return f" by {name} (process {connection.pid})" if connection.pid else f" by {name}"
    return ""
