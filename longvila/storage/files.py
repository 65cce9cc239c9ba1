"""Local files that are whole or absent, and operating system errors in words that help."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longvila.errors import InputError, LongVilaError, MachineError

PART_SUFFIX = ".part"

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_EXHAUSTED = {errno.EMFILE, errno.ENFILE}


def explain(error: OSError, action: str) -> LongVilaError:
    """Return the error of our tree for what the operating system said while doing ``action``."""
    if error.errno in _FULL:
        return MachineError(
            f"The disk is full: cannot {action}. Free space, or choose a folder on another disk."
        )
    if error.errno in _FORBIDDEN:
        return MachineError(
            f"No permission to {action} ({error.strerror}). Change the folder's rights, or use another one."
        )
    if error.errno == errno.EFBIG:
        return MachineError(f"A file is larger than allowed: cannot {action}. Raise the limit (ulimit -f).")
    if error.errno in _EXHAUSTED:
        return MachineError(f"Too many open files: cannot {action}. Raise the limit (ulimit -n).")
    if error.errno == errno.ENOENT:
        return InputError(f"Cannot {action}: there is no such file. Check the path.")
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return InputError(
            f"Cannot {action}: {error.strerror}. A file stands where a folder is needed, or the reverse."
        )
    if error.errno == errno.ENAMETOOLONG:
        return InputError(f"Cannot {action}: the name is too long for this disk.")
    return MachineError(f"Cannot {action}: {error.strerror or error}. Look at the disk and the system log.")


@contextmanager
def os_errors(action: str) -> Iterator[None]:
    """Turn an ``OSError`` inside into an error that names ``action`` and the mend."""
    try:
        yield
    except OSError as error:
        raise explain(error, action) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; it takes the name ``path`` only when the block succeeds.

    The folder is made. The file is flushed to disk before the rename; after an error it is removed.
    """
    part = path.with_name(f".{path.name[:120]}.{secrets.token_hex(6)}{PART_SUFFIX}")
    with os_errors(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            _flush(part)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or none."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or none."""
    write_bytes(path, text.encode())


def is_part(path: Path) -> bool:
    """Say whether this is the unfinished file of a write that is running or was killed."""
    return path.name.startswith(".") and path.name.endswith(PART_SUFFIX)
