"""The one interface to files: a local folder and an S3 prefix look the same to everyone above."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from longvila.errors import InputError


@runtime_checkable
class Storage(Protocol):
    """A local folder or ``s3://bucket/prefix``.

    Keys are relative POSIX paths, checked against traversal. A write is whole or absent: no reader ever
    sees a part of an object. Errors are ``InputError`` (missing), ``MachineError`` (disk, permission,
    credentials) and ``NetworkError`` (what a retry can mend).
    """

    url: str

    def put_file(self, key: str, path: Path) -> None:
        """Store a copy of the local file ``path`` under ``key``."""
        ...

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key``."""
        ...

    def get_file(self, key: str, path: Path) -> None:
        """Copy the object to the local file ``path``; ``InputError`` when it is missing."""
        ...

    def get_bytes(self, key: str) -> bytes:
        """Return the whole object; ``InputError`` when it is missing."""
        ...

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return the bytes ``[start, stop)``; ``InputError`` when the object is missing or shorter."""
        ...

    def exists(self, key: str) -> bool:
        """Say whether there is an object of that key."""
        ...

    def size(self, key: str) -> int:
        """Return the object's size in bytes; ``InputError`` when it is missing."""
        ...

    def fingerprint(self, key: str) -> str:
        """Return a short text that changes whenever the object's content does."""
        ...

    def list(self, prefix: str = "") -> list[str]:
        """Return the sorted keys that start with ``prefix``."""
        ...

    def local_path(self, key: str) -> Path | None:
        """Return where the object lies as a local file, or None when the storage is remote."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object. Removing what is not there is no error."""
        ...

    def check_writable(self) -> None:
        """Write and remove a small object, so that a wrong folder, bucket or key is told at once."""
        ...


def check_key(key: str) -> str:
    """Return ``key`` if it is a plain relative POSIX path, or raise ``InputError``."""
    parts = key.split("/")
    bad_part = any(part in ("", ".", "..") for part in parts)
    bad_character = "\\" in key or any(ord(character) < 32 for character in key)
    if bad_part or bad_character:
        raise InputError(
            f"{key!r} cannot be a storage key: keys are relative paths like 'shards/demo/index.parquet', "
            "without '..', empty parts, backslashes or control characters."
        )
    return key
