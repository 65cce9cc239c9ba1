"""A proxy on loopback for programs that fetch by themselves: with our guard, pace and limit of bytes."""

from __future__ import annotations

import logging
import selectors
import socket
import socketserver
import threading
import time
from types import TracebackType
from typing import cast
from urllib.parse import urlsplit

from longvila.curation.fetching.guard import Guard
from longvila.curation.fetching.pace import Pacer
from longvila.errors import ItemError, NetworkError

logger = logging.getLogger(__name__)

_MAX_HEAD = 1 << 16
_CHUNK_BYTES = 1 << 16


class Gate:
    """Serves while the ``with`` block runs; ``url`` is what a program takes as its HTTP proxy.

    ``refusal`` is the first ``ItemError`` for which a connection was refused: private-address, or too-large
    after ``max_bytes`` came through.
    """

    def __init__(self, guard: Guard, pacer: Pacer, *, max_bytes: int, timeout_s: float) -> None:
        self.refusal: ItemError | None = None
        self.guard, self.pacer = guard, pacer
        self.timeout_s = timeout_s
        self._left_bytes = max_bytes
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.gate = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Gate:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def connect(self, host: str, port: int) -> socket.socket:
        """Open a connection to a host that may be talked to, when it is its turn."""
        try:
            addresses = self.guard.addresses(host, port)
        except ItemError as error:
            self.refuse(error)
            raise
        time.sleep(self.pacer.turn(host, port))
        for number, address in enumerate(addresses, start=1):
            try:
                return socket.create_connection((address, port), self.timeout_s)
            except OSError:
                if number == len(addresses):
                    raise
        raise NetworkError(f"the host {host} has no address")

    def refuse(self, error: ItemError) -> None:
        """Remember why something was refused."""
        self.refusal = self.refusal or error

    def count(self, num_bytes: int) -> bool:
        """Count what came through; False when it is more than allowed."""
        with self._lock:
            self._left_bytes -= num_bytes
        if self._left_bytes < 0:
            self.refuse(ItemError("too-large", f"more than {self._max_bytes:,} bytes"))
        return self._left_bytes >= 0


class _Server(socketserver.ThreadingTCPServer):
    gate: Gate
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True


class _Handler(socketserver.BaseRequestHandler):
    """One connection: a tunnel for https, one request for http."""

    def handle(self) -> None:
        gate = cast(_Server, self.server).gate
        self.request.settimeout(gate.timeout_s)
        try:
            head, behind = self._read_head()
            method, target, version = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
            host, port = parts.hostname, parts.port or 80
            if not host:
                raise ValueError("no host")
        except (OSError, ValueError):
            self._answer("400 Bad Request")
            return
        try:
            server = gate.connect(host, port)
        except (ItemError, NetworkError, OSError) as error:
            logger.debug("no way to %s: %s", host, error)
            self._answer("403 Forbidden" if isinstance(error, ItemError) else "502 Bad Gateway")
            return
        with server:
            if method == "CONNECT":
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = parts._replace(scheme="", netloc="").geturl() or "/"
                server.sendall(_one_request(f"{method} {path} {version}", head))
            server.sendall(behind)
            _pump(self.request, server, gate)

    def _read_head(self) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.request.recv(_CHUNK_BYTES)
            if not piece or len(data) > _MAX_HEAD:
                raise ValueError("no request")
            data += piece
        head, _, behind = data.partition(b"\r\n\r\n")
        return head, behind

    def _answer(self, status: str) -> None:
        try:
            self.request.sendall(
                f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
        except OSError:
            logger.debug("the program went away")


def _one_request(first: str, head: bytes) -> bytes:
    """The request as the server gets it: for this one answer, without what is meant for proxies."""
    lines = [
        line
        for line in head.split(b"\r\n")[1:]
        if not line.lower().startswith((b"proxy-", b"connection:", b"keep-alive:"))
    ]
    return b"\r\n".join([first.encode("latin-1"), *lines, b"Connection: close", b"", b""])


def _pump(client: socket.socket, server: socket.socket, gate: Gate) -> None:
    """Pass bytes both ways until one side ends, nothing comes in time, or it is too much."""
    other = {client: server, server: client}
    with selectors.DefaultSelector() as selector:
        for one in other:
            selector.register(one, selectors.EVENT_READ)
        while ready := selector.select(gate.timeout_s):
            for key, _ in ready:
                one = cast(socket.socket, key.fileobj)
                try:
                    piece = one.recv(_CHUNK_BYTES)
                    if not piece or (one is server and not gate.count(len(piece))):
                        return
                    other[one].sendall(piece)
                except OSError:
                    return
