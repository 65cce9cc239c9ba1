"""A small HTTP server for one folder of files, on the loopback interface only: for the demo and for tests.

It answers GET and HEAD, single byte ranges, ``If-Range`` and ``ETag``, so that interrupted downloads resume.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from urllib.parse import unquote, urlsplit

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 18
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class FileServer:
    """Serves ``root`` while the ``with`` block runs; ``url`` has no slash at its end.

    Files outside ``root``, hidden files and folder listings are 404.
    """

    def __init__(self, root: Path, *, port: int = 0) -> None:
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.root = root.resolve()
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def url(self) -> str:
        """The address, with the port that was free."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FileServer:
        self._thread.start()
        logger.info("serving %s at %s", self._server.root, self.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    root: Path
    daemon_threads = True
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("%s %s", self.address_string(), format % args)

    def _answer(self, *, with_body: bool) -> None:
        path = self._file()
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND, "There is no such file")
            return
        if not os.access(path, os.R_OK):
            self.send_error(HTTPStatus.FORBIDDEN, "The file may not be read")
            return
        stat = path.stat()
        etag = f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"'
        start, stop = 0, stat.st_size
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked and self.headers.get("If-Range", etag) == etag:
            start = int(asked[1])
            stop = min(stop, int(asked[2]) + 1) if asked[2] else stop
        if start >= max(stat.st_size, 1) or (asked and stop <= start):
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{stat.st_size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        is_part = (start, stop) != (0, stat.st_size)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK)
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{stat.st_size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", formatdate(stat.st_mtime, usegmt=True))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if with_body:
            self._send(path, start, stop)

    def _file(self) -> Path | None:
        root = cast(_Server, self.server).root
        relative = unquote(urlsplit(self.path).path).lstrip("/")
        if "\0" in relative or any(part.startswith(".") for part in relative.split("/")):
            return None
        path = (root / relative).resolve()
        return path if path.is_relative_to(root) and path.is_file() else None

    def _send(self, path: Path, start: int, stop: int) -> None:
        try:
            with path.open("rb") as file:
                file.seek(start)
                while start < stop and (piece := file.read(min(_CHUNK_BYTES, stop - start))):
                    self.wfile.write(piece)
                    start += len(piece)
        except ConnectionError:
            logger.debug("%s went away while reading %s", self.address_string(), path.name)
            self.close_connection = True
