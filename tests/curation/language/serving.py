"""A chat completions server on loopback with real sockets, whose faults are scripted request by request."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Fault:
    """What happens instead of an answer, or to it."""

    status: int = 0
    body: Any = None  # of an error; bytes are sent as they are
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False  # reset the connection
    cut: bool = False  # end in the middle of the body
    delay_s: float = 0.0  # before anything is sent
    trickle_s: float = 0.0  # between the bytes


@dataclass(frozen=True)
class Got:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """The text of the last turn."""
        return text_of(self.body["messages"][-1]) if self.body else ""


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def completion(
    text: str, *, finish: str = "stop", usage: Any = (10, 5), model: str = "tiny"
) -> dict[str, Any]:
    """The body of a plain answer; ``usage`` None leaves it out."""
    message = {"role": "assistant", "content": text}
    body: dict[str, Any] = {
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }
    if isinstance(usage, tuple):
        usage = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return body if usage is None else {**body, "usage": usage}


class ChatServer:
    """Answers with ``say(body)``; ``faults`` come first, one for each request, then ``fault_for(got)``."""

    def __init__(
        self,
        say: Say | None = None,
        *,
        faults: list[Fault | None] | None = None,
        fault_for: Callable[[Got], Fault | None] | None = None,
        models: list[str] | None = None,
        port: int = 0,
    ) -> None:
        self.say = say or (lambda body: completion(f"A calm scene with {len(body['messages'])} turns."))
        self.faults = list(faults or [])
        self.fault_for = fault_for or (lambda _: None)
        self.models = ["tiny"] if models is None else models
        self.got: list[Got] = []
        self.answered: list[Got] = []
        self.running = self.most_at_once = 0
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.chat = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    chat: ChatServer

    def handle_error(self, *_: object) -> None:
        """A client that went away is no error of the server's."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        chat = self.server.chat
        fault = chat.fault_for(Got(self.path, {}, {}))
        if fault is None and self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": name} for name in chat.models]}, Fault())
        else:
            self._send_fault(fault or Fault(status=404))

    def do_POST(self) -> None:
        chat = self.server.chat
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        got = Got(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        with chat.lock:
            chat.got.append(got)
            chat.running += 1
            chat.most_at_once = max(chat.most_at_once, chat.running)
            fault = chat.faults.pop(0) if chat.faults else chat.fault_for(got)
        try:
            if fault is not None and (fault.status or fault.drop):
                self._send_fault(fault)
            else:
                self._send(200, chat.say(body), fault or Fault())
                chat.answered.append(got)
        finally:
            with chat.lock:
                chat.running -= 1

    def _send_fault(self, fault: Fault) -> None:
        if not fault.drop:
            body = {"error": {"message": "scripted"}} if fault.body is None else fault.body
            self._send(fault.status, body, fault)
            return
        linger = struct.pack("ii", 1, 0)  # a reset instead of a polite end
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, body: Any, fault: Fault) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        time.sleep(fault.delay_s)
        self.send_response(status)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault.cut:
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif fault.trickle_s:
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(fault.trickle_s)
        else:
            self.wfile.write(data)
