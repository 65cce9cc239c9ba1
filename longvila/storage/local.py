"""A folder as storage."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from longvila.errors import InputError
from longvila.storage.base import check_key
from longvila.storage.files import atomic_path, is_part, os_errors, write_bytes


class LocalStorage:
    """Objects are the files below ``root``. The folder is made by the first write."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 (resolve() would follow links)
        self.url = str(self.root)

    def __repr__(self) -> str:
        return f"LocalStorage({self.url!r})"

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _existing(self, key: str) -> Path:
        path = self._path(key)
        if not self.exists(key):
            raise InputError(
                f"There is no {key!r} in {self.url}. Check the workspace, or run the step that makes it."
            )
        return path

    def put_file(self, key: str, path: Path) -> None:
        """Copy ``path`` in; a file that lies there already under this key is left as it is."""
        target = self._path(key)
        with os_errors(f"read {path}"):
            if target.exists() and path.samefile(target):
                return
        with atomic_path(target) as part:
            shutil.copyfile(path, part)

    def put_bytes(self, key: str, data: bytes) -> None:
        """Write ``data``."""
        write_bytes(self._path(key), data)

    def get_file(self, key: str, path: Path) -> None:
        """Copy the object out."""
        source = self._existing(key)
        with atomic_path(path) as part:
            shutil.copyfile(source, part)

    def get_bytes(self, key: str) -> bytes:
        """Read the whole object."""
        with os_errors(f"read {key!r} in {self.url}"):
            return self._existing(key).read_bytes()

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Read the bytes ``[start, stop)``."""
        path = self._existing(key)
        with os_errors(f"read {path}"), path.open("rb", buffering=0) as file:
            data = _pread_all(file.fileno(), start, stop)
        if len(data) != stop - start:
            raise InputError(
                f"{path} ends at byte {start + len(data)}, before byte {stop}: it is truncated or its "
                "index is of another build. Build the data set again."
            )
        return data

    def exists(self, key: str) -> bool:
        """Say whether the file is there."""
        path = self._path(key)
        with os_errors(f"look at {path}"):
            return path.is_file()

    def size(self, key: str) -> int:
        """Return the file's size in bytes."""
        return self._existing(key).stat().st_size

    def fingerprint(self, key: str) -> str:
        """Return size and modification time."""
        stat = self._existing(key).stat()
        return f"{stat.st_size}-{stat.st_mtime_ns}"

    def list(self, prefix: str = "") -> list[str]:
        """Return the sorted keys that start with ``prefix``, without unfinished writes."""
        folder = prefix.rpartition("/")[0]
        start = self.root / check_key(folder) if folder else self.root
        if not start.is_dir():
            return []
        with os_errors(f"list {start}"):
            paths = [path for path in start.rglob("*") if path.is_file() and not is_part(path)]
        keys = (path.relative_to(self.root).as_posix() for path in paths)
        return sorted(key for key in keys if key.startswith(prefix))

    def local_path(self, key: str) -> Path | None:
        """Return the file's path, whether it exists or not."""
        return self._path(key)

    def delete(self, key: str) -> None:
        """Remove the file."""
        path = self._path(key)
        with os_errors(f"delete {path}"):
            path.unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Make the folder and write a small file into it."""
        probe = self.root / f".probe-{secrets.token_hex(4)}"
        write_bytes(probe, b"probe")
        with os_errors(f"delete {probe}"):
            probe.unlink()


def _pread_all(descriptor: int, start: int, stop: int) -> bytes:
    pieces: list[bytes] = []
    while start < stop:
        piece = os.pread(descriptor, stop - start, start)
        if not piece:
            break
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)
