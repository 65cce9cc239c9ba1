"""Bring sources into the workspace: each file whole, checked, and stored under the hash of its content."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from longvila.config.sourcing import FetchConfig
from longvila.curation.download import Downloader
from longvila.curation.sources import redacted
from longvila.errors import InputError, ItemError
from longvila.records import Record, Source, Split, content_id
from longvila.storage import Workspace, atomic_path, open_storage
from longvila.storage.files import os_errors

logger = logging.getLogger(__name__)

VERSION = 1
PASSING_REASONS = frozenset({"unreachable", "too-slow"})  # a later run may fare better
_SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".m2ts",
        ".flv",
        ".ogv",
        ".wmv",
        ".3gp",
        ".gif",
    ]
)
_CHUNK_BYTES = 1 << 20


class FetchedVideo(Record):
    """A source's file in the workspace, not yet looked into."""

    source_id: str
    key: str
    url: str
    sha256: str
    size_bytes: int
    split: Split
    title: str = ""
    author: str = ""
    license: str = ""


def fetch_source(
    source: Source, *, workspace: Workspace, config: FetchConfig, downloader: Downloader | None = None
) -> FetchedVideo:
    """Fetch one source by http(s), s3, file:// or path, and store it as ``videos/ab/abcd….mp4``.

    With a known sha256 a file that is stored already is not fetched again. Raises ``ItemError``; reasons are
    those of ``Downloader.download``, and missing, empty, too-large, size-differs, checksum-differs.
    """
    key = _key(source.sha256, source.url) if source.sha256 else None
    if key and workspace.storage.exists(key):
        return _fetched(source, key, source.sha256 or "", workspace.storage.size(key))
    scratch = workspace.scratch("fetch")
    part = scratch / f"{content_id(source.url)}.part"
    with FileLock(str(part) + ".lock"):
        if source.url.startswith(("http://", "https://")):
            if downloader is None:
                with Downloader(config) as downloader:
                    downloader.download(source.url, part)
            else:
                downloader.download(source.url, part)
        else:
            _copy(source, part, config)
        sha256 = _check(source, part)
        key = _key(sha256, source.url)
        if not workspace.storage.exists(key):
            workspace.storage.put_file(key, part)
        size_bytes = part.stat().st_size
        for path in (part, part.with_name(part.name + ".json")):
            path.unlink(missing_ok=True)
    logger.info("fetched %s (%d bytes)", redacted(source.url), size_bytes)
    return _fetched(source, key, sha256, size_bytes)


def _fetched(source: Source, key: str, sha256: str, size_bytes: int) -> FetchedVideo:
    return FetchedVideo(
        source_id=source.source_id,
        key=key,
        url=redacted(source.url),
        sha256=sha256,
        size_bytes=size_bytes,
        split=source.split,
        title=source.title,
        author=source.author,
        license=source.license,
    )


def _key(sha256: str, url: str) -> str:
    suffix = PurePosixPath(unquote(urlsplit(url).path)).suffix.lower()
    return f"videos/{sha256[:2]}/{sha256}{suffix if suffix in _SUFFIXES else '.video'}"


def _copy(source: Source, part: Path, config: FetchConfig) -> None:
    """Copy a local file or an S3 object to ``part``."""
    if source.url.startswith("s3://"):
        folder, _, name = source.url.rpartition("/")
        try:
            storage = open_storage(folder)
            if storage.size(name) > config.max_size_bytes:
                raise ItemError("too-large", f"{source.url}: more than {config.max_size_bytes:,} bytes")
            storage.get_file(name, part)
        except InputError as error:
            raise ItemError("missing", f"{source.url}: {error}") from error
        return
    scheme = urlsplit(source.url).scheme
    if "://" in source.url and scheme != "file":
        raise ItemError(
            "bad-url", f"{redacted(source.url)}: {scheme} is not fetched. Use http, https, s3, file or a path"
        )
    path = Path(unquote(urlsplit(source.url).path)) if source.url.startswith("file://") else Path(source.url)
    if not path.is_file():
        raise ItemError("missing", f"There is no file {path}")
    if path.stat().st_size > config.max_size_bytes:
        raise ItemError("too-large", f"{path}: more than {config.max_size_bytes:,} bytes")
    with os_errors(f"copy {path}"), atomic_path(part) as beside:
        shutil.copyfile(path, beside)


def _check(source: Source, part: Path) -> str:
    """Return the file's sha256; a file that is not what the list says is removed and rejected."""
    size_bytes = part.stat().st_size
    problem: ItemError | None = None
    if size_bytes == 0:
        problem = ItemError("empty", f"{redacted(source.url)} has no bytes")
    elif source.size_bytes is not None and size_bytes != source.size_bytes:
        problem = ItemError(
            "size-differs",
            f"{redacted(source.url)} has {size_bytes:,} bytes, the list says {source.size_bytes:,}",
        )
    sha256 = _sha256(part)
    if problem is None and source.sha256 is not None and sha256 != source.sha256:
        problem = ItemError(
            "checksum-differs", f"{redacted(source.url)} has sha256 {sha256}, the list says {source.sha256}"
        )
    if problem is not None:
        part.unlink()
        part.with_name(part.name + ".json").unlink(missing_ok=True)
        raise problem
    return sha256


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with os_errors(f"read {path}"), path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()
