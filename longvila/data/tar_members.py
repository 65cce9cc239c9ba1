"""Walks over the headers of a tar, in a folder or in S3, without reading what the files in it hold."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from longvila.data.parts import Place
from longvila.errors import InputError
from longvila.storage import Storage

_READ_BYTES = 64 * 1024  # from S3, at once


class Member(NamedTuple):
    """One file of a tar."""

    name: str
    header_offset: int
    place: Place
    is_file: bool
    is_folder: bool


def members(storage: Storage, key: str) -> Iterator[Member]:
    """Yield the members of a tar in order; ``InputError`` when it is damaged or cut short."""
    size = storage.size(key)
    try:
        with _open(storage, key) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for one in tar:
                is_file = one.isreg() and not one.issparse()
                place = Place(one.offset_data, one.size)
                member = Member(one.name, one.offset, place, is_file, one.isdir())
                if member.place.offset + member.place.size > size:
                    raise InputError(f"{key} is cut short in {one.name!r}. Fetch or build it again.")
                yield member
            _check_end(storage, key, tar.offset, size)
    except (tarfile.TarError, OverflowError, ValueError, RecursionError) as error:
        raise InputError(
            f"{key} is not a whole, uncompressed tar ({error}). Fetch or build it again."
        ) from error


def _check_end(storage: Storage, key: str, offset: int, size: int) -> None:
    """A whole tar ends with two blocks of zeros; one that is cut between two files has none."""
    start = max(0, offset - tarfile.BLOCKSIZE)
    tail = storage.read_range(key, start, min(size, start + 2 * tarfile.BLOCKSIZE))
    if len(tail) < tarfile.BLOCKSIZE or any(tail[-tarfile.BLOCKSIZE :]):
        raise InputError(f"{key} is cut short: the end of the archive is missing. Fetch or build it again.")


@contextmanager
def _open(storage: Storage, key: str) -> Iterator[IO[bytes]]:
    path = storage.local_path(key)
    with path.open("rb") if path else io.BufferedReader(_RangedFile(storage, key), _READ_BYTES) as file:
        yield file


class _RangedFile(io.RawIOBase):
    """An object of a storage as a file that is read by ranges."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage, self._key = storage, key
        self._size, self._at = storage.size(key), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        stop = min(self._size, self._at + len(buffer))
        if stop <= self._at:
            return 0
        data = self._storage.read_range(self._key, self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
