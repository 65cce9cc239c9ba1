"""Inspecting files from outside in another process, so that one file cannot stop the others.

A decoder may hang, crash or take all memory on a file that was made, or damaged, to make it do so. The
process is started once and used for many files (a call costs less than a millisecond); after a crash or a
timeout the next file gets a new one. Messages are JSON, one line each.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import numpy as np

from longvila.errors import InputError, InternalError, ItemError, MachineError
from longvila.media.inspection import Inspection, Limits, inspect
from longvila.media.opening import shown_name
from longvila.media.probe import Probe

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 120.0
_WATCH_S = 1.0
_READY = b'{"ready": true}'
# Each of these would start a thread per core, and their stacks count as memory.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Guard:
    """Runs ``inspect`` in a process with limits. Use it in a ``with`` block; threads may share it."""

    def __init__(self, *, timeout_s: float, memory_bytes: int) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._unread = b""

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def inspect(self, path: Path, *, name: str, limits: Limits, as_it_is: bool = False) -> Inspection:
        """Do what ``longvila.media.inspection.inspect`` does.

        Raises what that raises, and ``ItemError``; reasons: decoder-hangs, decoder-crashes.
        """
        request = {
            "path": os.fsencode(path).hex(),
            "name": shown_name(name),
            "limits": dataclasses.asdict(limits),
            "as_it_is": as_it_is,
        }
        with self._lock:
            reply = self._ask(json.dumps(request).encode(), shown_name(name))
        return _parse(reply)

    def _ask(self, line: bytes, name: str) -> dict[str, Any]:
        process = self._running()
        try:
            cast(IO[bytes], process.stdin).write(line + b"\n")
            cast(IO[bytes], process.stdin).flush()
            return json.loads(self._read_line(self._timeout_s))
        except TimeoutError as error:
            self._stop()
            raise ItemError(
                "decoder-hangs", f"{name}: looking into it was not done after {self._timeout_s:g} s"
            ) from error
        except (EOFError, BrokenPipeError) as error:
            code = process.wait()
            self._stop()
            how = signal.Signals(-code).name if code < 0 else f"code {code}"
            raise ItemError("decoder-crashes", f"{name}: the decoder crashes on it ({how})") from error
        except BaseException:  # stopped while the process works on: its answer would be taken for the next
            self._stop()
            raise

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed by _stop)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "longvila.media.guard", str(self._memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=os.environ | _ONE_THREAD,
            )
            try:
                self._read_line(_START_TIMEOUT_S)
            except (TimeoutError, EOFError) as error:
                self._said.seek(0)
                said = self._said.read()[-2000:].decode(errors="replace").strip()
                self._stop()
                raise InternalError(
                    f"The process that looks into videos does not start. It said: {said}"
                ) from error
        return self._process

    def _read_line(self, timeout_s: float) -> bytes:
        pipe = cast(IO[bytes], cast(subprocess.Popen[bytes], self._process).stdout)
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                piece = os.read(pipe.fileno(), 1 << 20)
                if not piece:
                    raise EOFError
                self._unread += piece
        line, self._unread = self._unread.split(b"\n", 1)
        return line

    def _stop(self) -> None:
        process, self._process, self._unread = self._process, None, b""
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    cast(IO[bytes], pipe).close()
        if self._said is not None:
            self._said.close()
            self._said = None


def _parse(reply: dict[str, Any]) -> Inspection:
    if "rejected" in reply:
        raise ItemError(*reply["rejected"])
    if "input" in reply:
        raise InputError(reply["input"])
    if "machine" in reply:
        raise MachineError(reply["machine"])
    if "unexpected" in reply:
        logger.error("looking into a video failed unexpectedly: %s", reply["unexpected"])
        raise ItemError("unreadable", reply["unexpected"])
    return Inspection(_facts_from(reply["facts"]), tuple(reply["why"]))


def _facts_as_json(facts: Probe) -> dict[str, Any]:
    values = {field.name: getattr(facts, field.name) for field in dataclasses.fields(facts)}
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            values[name] = base64.b64encode(value.astype("<i8").tobytes()).decode()
        elif isinstance(value, Fraction):
            values[name] = str(value)
    return values


def _facts_from(values: dict[str, Any]) -> Probe:
    kinds = {field.name: str(field.type) for field in dataclasses.fields(Probe)}
    for name, value in values.items():
        if kinds[name] == "np.ndarray":
            values[name] = np.frombuffer(base64.b64decode(value), dtype="<i8").astype(np.int64)
        elif kinds[name] == "Fraction":
            values[name] = Fraction(value)
    return Probe(**values)


def _answer(line: bytes) -> dict[str, Any]:
    request = json.loads(line)
    path = Path(os.fsdecode(bytes.fromhex(request["path"])))
    try:
        found = inspect(
            path, name=request["name"], limits=Limits(**request["limits"]), as_it_is=request["as_it_is"]
        )
    except ItemError as error:
        return {"rejected": [error.reason, error.detail]}
    except InputError as error:
        return {"input": str(error)}
    except MachineError as error:
        return {"machine": str(error)}
    except MemoryError:
        detail = "decoding it takes more memory than is allowed"
        return {"rejected": ["too-much-memory", f"{request['name']}: {detail}"]}
    except Exception as error:  # noqa: BLE001 (the file's or ours: it must not stop the others; it is logged)
        return {"unexpected": f"{request['name']}: reading it fails ({type(error).__name__}: {error})"}
    return {"facts": _facts_as_json(found.facts), "why": found.why_normalise}


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, even while a decoder hangs."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)


def main() -> None:
    """Answer requests from standard input until it ends."""
    import resource

    import av

    av.logging.set_level(None)
    memory_bytes = int(sys.argv[1])
    with contextlib.suppress(ValueError, OSError):  # a lower limit is there already
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints does not end up among the answers
    answers.write(_READY + b"\n")
    answers.flush()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    for line in sys.stdin.buffer:
        answers.write(json.dumps(_answer(line)).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
