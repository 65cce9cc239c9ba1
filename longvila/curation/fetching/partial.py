"""A download that is not whole yet: a file that grows, and beside it what is needed to go on with it."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from longvila.config.addresses import canonical, redacted
from longvila.errors import ItemError, NetworkError
from longvila.records import content_id
from longvila.storage import write_text
from longvila.storage.files import os_errors

_CHUNK_BYTES = 1 << 20
_SYNC_BYTES = 64 << 20  # written since the last flush to the disk itself


@dataclass(frozen=True)
class Limits:
    """What one download may take. ``deadline`` is a time of ``time.monotonic``."""

    max_size_bytes: int
    total_timeout_s: float
    deadline: float

    @classmethod
    def starting_now(cls, *, max_size_bytes: int, total_timeout_s: float) -> Limits:
        """The limits of a download that begins now."""
        return cls(max_size_bytes, total_timeout_s, time.monotonic() + total_timeout_s)

    def too_slow(self, url: str) -> ItemError:
        """The error for a download that is not whole in time."""
        words = f"not whole after {self.total_timeout_s:g} s. Run it again to go on"
        return ItemError("too-slow", f"{redacted(url)}: {words}")


class Partial:
    """The bytes ``[0, size)`` of one version of the file at ``url``.

    ``validator`` tells this version from others, ``total`` is its whole size; both are empty while not
    known. What an earlier process left is taken over when it is of the same address.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self._source = content_id(canonical(url))
        self._meta_path = path.with_name(path.name + ".json")
        self.validator, self.total, self.encoding, self._synced = "", None, "", 0
        meta = self._read()
        if meta is not None:
            self._save(*meta, synced=self._synced)  # from now on of this start of the machine
        else:
            self.forget()

    @property
    def size(self) -> int:
        """How many bytes are there."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def is_whole(self) -> bool:
        """Whether every byte is there."""
        return self.total is not None and self.path.exists() and self.size == self.total

    def begin(self, *, validator: str, total: int | None, encoding: str = "") -> None:
        """Throw away what is there, and say which version the bytes from now on are of."""
        self.forget()
        self._save(validator, total, encoding)

    def learn_total(self, total: int | None) -> None:
        """The whole size became known."""
        if total is not None and total != self.total:
            self._save(self.validator, total, self.encoding)

    def _save(self, validator: str, total: int | None, encoding: str, *, synced: int = 0) -> None:
        self.validator, self.total, self.encoding = validator, total, encoding
        self._synced = max(synced, self._synced)
        facts = {"source": self._source, "validator": validator, "total": total, "encoding": encoding}
        facts |= {"synced": self._synced, "boot": _boot_id()}
        write_text(self._meta_path, json.dumps(facts))

    def forget(self) -> None:
        """Throw everything away."""
        self.path.unlink(missing_ok=True)
        self._meta_path.unlink(missing_ok=True)
        self.validator, self.total, self.encoding, self._synced = "", None, "", 0

    def write(self, pieces: Iterable[bytes], *, url: str, limits: Limits) -> None:
        """Write what arrives behind what is there. Raises ``ItemError`` too-large (all is lost), too-slow."""
        size = self.size
        with os_errors(f"write {self.path}"), self.path.open("ab") as file:
            for piece in pieces:
                size += len(piece)
                if size > limits.max_size_bytes:
                    self.forget()
                    raise too_large(url, limits.max_size_bytes)
                file.write(piece)
                if size - self._synced >= _SYNC_BYTES:
                    file.flush()
                    os.fsync(file.fileno())
                    self._save(self.validator, self.total, self.encoding, synced=size)
                if time.monotonic() > limits.deadline:
                    raise limits.too_slow(url)

    def unpack(self, *, max_size_bytes: int, url: str) -> None:
        """Undo the packing of a server that packs what it was asked not to pack."""
        if not self.encoding:
            return
        unpacked = self.path.with_name(self.path.name + ".unpacked")
        try:
            with (
                os_errors(f"unpack {self.path}"),
                self.path.open("rb") as packed,
                unpacked.open("wb") as file,
            ):
                size = 0
                for piece in _unpacked(packed):
                    size += len(piece)
                    if size > max_size_bytes:
                        raise too_large(url, max_size_bytes)
                    file.write(piece)
            unpacked.replace(self.path)
            self._save("", size, "")
        except zlib.error as error:
            raise NetworkError(f"what the server packed cannot be unpacked ({error})") from error
        finally:
            unpacked.unlink(missing_ok=True)
            if self.encoding:
                self.forget()

    def _read(self) -> tuple[str, int | None, str] | None:
        """What an earlier process wrote down; None when there is nothing to go on with."""
        try:
            meta = json.loads(self._meta_path.read_text())
            if meta["source"] != self._source or not self.path.is_file():
                return None
            found = str(meta["validator"]), meta["total"], str(meta["encoding"])
            self._synced = int(meta["synced"])
            if meta["boot"] != _boot_id():  # what was not synced may have lost blocks
                os.truncate(self.path, min(self._synced, self.path.stat().st_size))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if self._may_go_on(*found[:2]) else None

    def _may_go_on(self, validator: str, total: int | None) -> bool:
        return bool(validator) or (total is not None and self.path.stat().st_size == total)


def too_large(url: str, max_size_bytes: int) -> ItemError:
    """The error for more bytes than allowed."""
    return ItemError("too-large", f"{redacted(url)}: more than {max_size_bytes:,} bytes")


def _boot_id() -> str:
    """What changes when the machine starts anew; "" where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _unpacked(packed) -> Iterable[bytes]:
    """Yield the content of a gzip or zlib stream, in pieces that stay small whatever they unpack to."""
    head = packed.read(2)
    packed.seek(0)
    unpack = zlib.decompressobj(wbits=47 if head[:1] in (b"\x1f", b"\x78") else -15)
    while piece := packed.read(_CHUNK_BYTES):
        while piece:
            yield unpack.decompress(piece, _CHUNK_BYTES)
            piece = unpack.unconsumed_tail
            if unpack.eof and unpack.unused_data:  # a gzip file may be several, one after another
                piece, unpack = unpack.unused_data, zlib.decompressobj(wbits=47)
    yield unpack.flush()
    if not unpack.eof:
        raise zlib.error("it is cut short")
