"""Bring sources into the workspace: each file whole, checked, and stored under the hash of its content."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock

from longvila.config.addresses import FETCHED_SCHEMES, canonical, path_of, redacted, scheme_of
from longvila.config.sourcing import FetchConfig
from longvila.curation.fetching.budget import FULL, Budget
from longvila.curation.fetching.download import Downloader
from longvila.curation.fetching.partial import too_large
from longvila.curation.listing.folders import VIDEO_SUFFIXES
from longvila.errors import ItemError
from longvila.records import Record, Source, Split, content_id
from longvila.storage import Workspace, write_text
from longvila.storage.files import atomic_path, os_errors

logger = logging.getLogger(__name__)

VERSION = 1
PASSING_REASONS = frozenset(
    {"unreachable", "too-slow", "no-yt-dlp", "address-unknown"}
)  # a later run may fare better
RETRIED_REASONS = PASSING_REASONS | frozenset(
    {FULL, "missing", "unreadable", "forbidden", "private-address", "too-large", "too-many-redirects"}
)  # a setting, a permission or a file on this machine may have changed, and looking again costs little
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


@dataclass(frozen=True)
class Facts:
    """What a page says of its video; "" for what it does not say."""

    title: str = ""
    author: str = ""
    license: str = ""
    suffix: str = ""


def fetch_source(
    source: Source,
    *,
    workspace: Workspace,
    config: FetchConfig,
    downloader: Downloader | None = None,
    budget: Budget | None = None,
) -> FetchedVideo:
    """Fetch one source by http(s), s3, file://, path or yt-dlp, and store it as ``videos/ab/abcd….mp4``.

    With a known sha256 a file that is stored already is not fetched again. Raises ``ItemError``; reasons
    are those of ``Downloader.download``, and missing, unreadable, empty, too-large, size-differs,
    checksum-differs, set-full, and for yt-dlp no-yt-dlp. Raises ``MachineError`` for a full disk,
    ``NetworkError`` for a storage that does not answer.
    """
    if downloader is None:
        with Downloader(config) as own:
            return fetch_source(source, workspace=workspace, config=config, downloader=own, budget=budget)
    room_bytes = budget.begin(source) if budget else config.max_size_bytes
    try:
        return _fetch(source, workspace, config, downloader, budget, min(room_bytes, config.max_size_bytes))
    except ItemError as error:
        if budget and error.reason == "too-large" and room_bytes < config.max_size_bytes:
            raise budget.full(source.source_id) from error
        raise
    finally:
        if budget:
            budget.end(source)


def download_to(url: str, path: Path, *, config: FetchConfig) -> None:
    """Bring one file by http(s) or s3 to ``path``, whole or not at all. Errors as ``fetch_source``."""
    part = path.with_name(path.name + ".part")
    with os_errors(f"make {path.parent}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{part}.lock"), Downloader(config) as downloader:
        _bring(Source(source_id="table", url=url), part, config, downloader, config.max_size_bytes)
        part.replace(path)
        _forget(part)


def _fetch(
    source: Source,
    workspace: Workspace,
    config: FetchConfig,
    downloader: Downloader,
    budget: Budget | None,
    max_size_bytes: int,
) -> FetchedVideo:
    key = _key(source.sha256, path_of(source.url)) if source.sha256 else None
    if key and workspace.storage.exists(key):
        size_bytes = workspace.storage.size(key)
        if budget:
            budget.admit(source, size_bytes)
        return _fetched(source, key, source.sha256 or "", size_bytes, Facts())
    own = source.source_id if budget else ""  # who waits for a turn must hold no file that others wait for
    part = workspace.scratch("fetch") / f"{content_id(source.fetcher, canonical(source.url), own)}.part"
    asked_at = time.time()
    with FileLock(f"{part}.lock"):
        meanwhile = _fetched_meanwhile(source, workspace, part, since=asked_at)
        if meanwhile is not None:
            return meanwhile
        facts = _bring(source, part, config, downloader, max_size_bytes)
        sha256, size_bytes = _check(source, part), part.stat().st_size
        if budget:
            budget.admit(source, size_bytes)
        found = _fetched(source, _key(sha256, facts.suffix or path_of(source.url)), sha256, size_bytes, facts)
        _store(workspace, found.key, part)
        write_text(_note_path(part), found.model_dump_json())
        _forget(part)
    logger.info("fetched %s (%d bytes)", redacted(source.url), size_bytes)
    return found


def _bring(
    source: Source, part: Path, config: FetchConfig, downloader: Downloader, max_size_bytes: int
) -> Facts:
    """Get the whole file into ``part``, by the way that its address says."""
    scheme = scheme_of(source.url)
    if "://" in source.url and scheme not in FETCHED_SCHEMES:
        known = ", ".join(FETCHED_SCHEMES)
        raise ItemError("bad-url", f"{redacted(source.url)}: {scheme} is not fetched. Use {known} or a path")
    if source.fetcher == "yt-dlp":
        from longvila.curation.fetching.ytdlp import download_video  # an extra

        return download_video(
            source.url, part, config=config, downloader=downloader, max_size_bytes=max_size_bytes
        )
    if scheme in ("http", "https"):
        downloader.download(source.url, part, max_size_bytes=max_size_bytes)
    elif scheme == "s3":
        from longvila.curation.fetching.s3_download import (
            download_object,  # boto3 is loaded only where it is used
        )

        download_object(source.url, part, config=config, max_size_bytes=max_size_bytes)
    else:
        _copy(Path(path_of(source.url)), part, max_size_bytes)
    return Facts()


def _copy(path: Path, part: Path, max_size_bytes: int) -> None:
    """Copy a local file. That it cannot be read is the source's fault, written the machine's."""
    try:
        if not path.is_file():
            raise ItemError("missing", f"There is no file {path}")
        file = path.open("rb")
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise ItemError("unreadable", f"{path} cannot be read ({words})") from error
    size_bytes = 0
    with file, atomic_path(part) as beside, beside.open("wb") as copy:
        while piece := _read(file, path):
            size_bytes += len(piece)
            if size_bytes > max_size_bytes:
                raise too_large(str(path), max_size_bytes)
            copy.write(piece)


def _read(file, path: Path) -> bytes:
    try:
        return file.read(_CHUNK_BYTES)
    except OSError as error:
        raise ItemError("unreadable", f"{path} cannot be read ({error.strerror})") from error


def _fetched_meanwhile(
    source: Source, workspace: Workspace, part: Path, *, since: float
) -> FetchedVideo | None:
    """What another process or thread fetched of the same address while this one waited for it."""
    try:
        if _note_path(part).stat().st_mtime < since:
            return None
        note = FetchedVideo.model_validate_json(_note_path(part).read_text())
    except (OSError, ValueError):
        return None
    as_listed = source.sha256 in (None, note.sha256) and source.size_bytes in (None, note.size_bytes)
    if not as_listed or not workspace.storage.exists(note.key):
        return None
    facts = Facts(note.title, note.author, note.license)
    return _fetched(source, note.key, note.sha256, note.size_bytes, facts)


def _fetched(source: Source, key: str, sha256: str, size_bytes: int, facts: Facts) -> FetchedVideo:
    """What the list says of a video goes before what its page says."""
    return FetchedVideo(
        source_id=source.source_id,
        key=key,
        url=redacted(source.url),
        sha256=sha256,
        size_bytes=size_bytes,
        split=source.split,
        title=source.title or facts.title,
        author=source.author or facts.author,
        license=source.license or facts.license,
    )


def _key(sha256: str, name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    return f"videos/{sha256[:2]}/{sha256}{suffix if suffix in VIDEO_SUFFIXES else '.video'}"


def _store(workspace: Workspace, key: str, part: Path) -> None:
    """Put the file into the storage: moved when it is a folder on the same disk, else copied."""
    if workspace.storage.exists(key):
        return
    target = workspace.storage.local_path(key)
    if target is None or workspace.storage.url != str(workspace.root):
        workspace.storage.put_file(key, part)
        return
    with os_errors(f"write {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)


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
    sha256 = "" if problem else _sha256(part)
    if problem is None and source.sha256 is not None and sha256 != source.sha256:
        problem = ItemError(
            "checksum-differs", f"{redacted(source.url)} has sha256 {sha256}, the list says {source.sha256}"
        )
    if problem is not None:
        _forget(part)
        raise problem
    return sha256


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with os_errors(f"read {path}"), path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _note_path(part: Path) -> Path:
    return part.with_suffix(".done")


def _forget(part: Path) -> None:
    for path in (part, part.with_name(part.name + ".json")):
        path.unlink(missing_ok=True)
