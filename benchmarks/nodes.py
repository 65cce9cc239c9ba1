"""Two nodes on one machine: network namespaces joined by a slow link.

Every namespace has its own loopback, over which its ranks talk at the machine's speed. What goes to the
other node crosses a veth pair, shaped at both ends to a given rate by a token bucket; the kernel counts its
bytes. Where namespaces cannot be made, both nodes are the machine itself, without a slow link.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

PREFIX = "mmspbench"
INTERFACE = "link0"
NETWORK = "10.231.77"
BURST_BYTES = 65536
QUEUE_MS = 2000
_PLAIN_TCP = ("net.ipv4.tcp_congestion_control=reno", "net.ipv4.tcp_slow_start_after_idle=0")
"""The link is to be a pipe of a given rate: no probing for bandwidth, no slow start after a pause."""
_NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_TX_BYTES = 8  # columns of /proc/net/dev: eight of receiving, then bytes sent


class LinkError(RuntimeError):
    """The kernel does not give us namespaces or a shaped link; says why."""


@dataclass(frozen=True)
class Node:
    """Where some ranks run: in a namespace, or in the machine's own network."""

    namespace: str | None
    interface: str

    def enter(self) -> None:
        """Move this process, which must have one thread only, into the node; gloo will use its interface."""
        os.environ["GLOO_SOCKET_IFNAME"] = self.interface
        if self.namespace is None:
            return
        libc = ctypes.CDLL(None, use_errno=True)
        with (_NAMESPACES / self.namespace).open() as handle:
            if libc.setns(handle.fileno(), _CLONE_NEWNET):
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error), self.namespace)

    def sent_bytes(self) -> int:
        """Return how many bytes the interface has sent since it was made; for a process inside the node."""
        for line in Path("/proc/self/net/dev").read_text().splitlines():
            name, _, columns = line.partition(":")
            if name.strip() == self.interface:
                return int(columns.split()[_TX_BYTES])
        raise LinkError(f"this process sees no interface {self.interface}")


@dataclass(frozen=True)
class Nodes:
    """Two nodes and the link between them; ``problem`` says why there is no slow link, if there is none."""

    nodes: tuple[Node, Node]
    rate_mbit: float
    problem: str | None = None

    @property
    def have_link(self) -> bool:
        """Whether bytes between the nodes cross a link of the given rate and are counted there."""
        return self.problem is None

    def node_of(self, rank: int, num_ranks: int) -> int:
        """Return the node of a rank: consecutive ranks share one."""
        return rank * len(self.nodes) // num_ranks


@contextmanager
def two_nodes(rate_mbit: float) -> Iterator[Nodes]:
    """Give two nodes; take them down at the end, also after an error, Ctrl-C or SIGTERM."""
    run = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(3)}"
    names = (f"{run}-0", f"{run}-1")
    with _signals_raise():
        try:
            yield _linked(names, rate_mbit)
        finally:
            with _undisturbed():
                _remove(names)


def _linked(names: tuple[str, str], rate_mbit: float) -> Nodes:
    """Make the namespaces and the link, or give the machine's own network and the reason."""
    try:
        _remove_left_behind()
        _make(names, rate_mbit)
    except (LinkError, OSError) as error:
        _remove(names)
        own = Node(None, "lo")
        return Nodes((own, own), rate_mbit, problem=str(error))
    return Nodes((Node(names[0], INTERFACE), Node(names[1], INTERFACE)), rate_mbit)


def _make(names: Sequence[str], rate_mbit: float) -> None:
    for name in names:
        _call("ip", "netns", "add", name)
    pair = ["type", "veth", "peer", "name", INTERFACE, "netns", names[1]]
    _call("ip", "-n", names[0], "link", "add", INTERFACE, *pair)
    for i, name in enumerate(names, start=1):
        _call("ip", "-n", name, "link", "set", "lo", "up")
        _call("ip", "-n", name, "addr", "add", f"{NETWORK}.{i}/24", "dev", INTERFACE)
        _call("ip", "-n", name, "link", "set", INTERFACE, "up")
        for setting in _PLAIN_TCP:
            _call("ip", "netns", "exec", name, "sysctl", "-qw", setting)
        bucket = ["rate", f"{rate_mbit}mbit", "burst", str(BURST_BYTES), "latency", f"{QUEUE_MS}ms"]
        _call("tc", "-n", name, "qdisc", "add", "dev", INTERFACE, "root", "tbf", *bucket)


def _remove(names: Sequence[str]) -> None:
    """Delete namespaces, and with them what is in them."""
    for name in names:
        if (_NAMESPACES / name).exists():
            subprocess.run(
                ["ip", "netns", "del", name], capture_output=True, check=False, start_new_session=True
            )


def left_behind() -> list[str]:
    """Return the namespaces of runs that ended without a chance to clean up: their process is gone."""
    if not _NAMESPACES.is_dir():
        return []
    found = ((path.name, re.match(rf"{PREFIX}-(\d+)-", path.name)) for path in _NAMESPACES.iterdir())
    return [name for name, match in found if match and not Path(f"/proc/{match[1]}").exists()]


def _remove_left_behind() -> None:
    _remove(left_behind())


def _call(*command: str) -> None:
    try:
        subprocess.run(command, capture_output=True, check=True, text=True)
    except FileNotFoundError as error:
        raise LinkError(f"{command[0]} is not installed (Debian: apt install iproute2)") from error
    except subprocess.CalledProcessError as error:
        raise LinkError(f"{' '.join(command)}: {error.stderr.strip()}") from error


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as an exception does, so that ``finally`` runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back signals that would end a clean-up half way."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
