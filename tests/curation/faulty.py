"""A loopback HTTP server that misbehaves as it is told."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Behaviour = Callable[[BaseHTTPRequestHandler], None]


class FaultyServer:
    """Answers request number i to a path with behaviour i of that path; the last one repeats."""

    def __init__(self, paths: dict[str, list[Behaviour]]) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                seen = sum(path == self.path for path, _ in outer.requests)
                outer.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                behaviours = paths[self.path]
                behaviours[min(seen, len(behaviours) - 1)](self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answer(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Answer properly."""

    def behave(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return behave


def break_off(body: bytes, after: int, *, etag: str = '"1"') -> Behaviour:
    """Promise the whole body, send a part of it and cut the connection."""

    def behave(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("ETag", etag)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:after])
        request.wfile.flush()
        request.close_connection = True
        request.connection.close()

    return behave


def rest(body: bytes, *, etag: str = '"1"') -> Behaviour:
    """Answer a range as asked, or the whole when the condition does not hold."""

    def behave(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        if asked is None or request.headers.get("If-Range") != etag:
            answer(200, body, ETag=etag)(request)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        answer(206, body[start:], ETag=etag, Content_Range=span)(request)

    return behave


def stall(request: BaseHTTPRequestHandler) -> None:
    """Promise a body and send nothing until the client gives up."""
    request.send_response(200)
    request.send_header("Content-Length", "10")
    request.end_headers()
    request.wfile.flush()
    request.connection.settimeout(5)
    with contextlib.suppress(OSError):
        request.rfile.read(1)
    request.close_connection = True


def raw(head: str, body: bytes = b"") -> Behaviour:
    """Send these very bytes and cut the connection. Lines of ``head`` are parted by a plain newline."""

    def behave(request: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            request.wfile.write(head.strip().replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
            request.wfile.flush()
        request.close_connection = True

    return behave


def slowly(body: bytes, *, piece: int, pause_s: float, etag: str = '"1"') -> Behaviour:
    """Answer whole or range as asked, a piece at a time."""

    def behave(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        request.send_response(206 if asked else 200)
        if asked:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("ETag", etag)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        with contextlib.suppress(OSError):
            while start < len(body):
                request.wfile.write(body[start : start + piece])
                start += piece
                time.sleep(pause_s)
        request.close_connection = True

    return behave
