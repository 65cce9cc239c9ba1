"""The videos in a folder, on this machine or in a bucket, as sources whose ids do not change as it grows."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from longvila.config.addresses import is_relative, path_of, scheme_of, stem_of
from longvila.config.sources import FolderEntry, SourceDefaults
from longvila.curation.listing.listing import Listing, Part, split_of
from longvila.errors import ConfigError, InputError
from longvila.records import Source, content_id

VIDEO_SUFFIXES = frozenset(
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
        ".mts",
        ".flv",
        ".ogv",
        ".wmv",
        ".3gp",
        ".gif",
        ".vob",
        ".mxf",
    ]
)


class Found(NamedTuple):
    """A file below a folder; ``problem`` is a reason and its detail when it cannot be a source."""

    path: str  # inside the folder, with /
    size_bytes: int | None = None
    problem: tuple[str, str] | None = None
    leads_out: bool = False


def list_folder(listing: Listing, entry: FolderEntry, defaults: SourceDefaults, *, base: Path) -> None:
    """Add the folder's videos to ``listing``. ``base`` is the folder of the source list.

    Raises ``InputError`` when there is no such folder, and what S3 answers.
    """
    part = listing.begin("folder", entry.url)
    wanted = _matcher(entry.pattern)
    if scheme_of(entry.url) == "s3":
        found = _in_bucket(entry.url, recursive=entry.recursive)
    elif scheme_of(entry.url) in ("", "file"):
        found = walk(_local(entry.url, base), recursive=entry.recursive, follow_links=entry.follow_links)
    else:
        raise InputError(
            f"The folder {part.where} cannot be listed: give a path, file:// or s3://. "
            "For files on a web server write a table of their addresses."
        )
    for file in found:
        _add(listing, part, file, entry, defaults, wanted=wanted, base=base)


def _add(
    listing: Listing,
    part: Part,
    file: Found,
    entry: FolderEntry,
    defaults: SourceDefaults,
    *,
    wanted: Callable[[str], bool],
    base: Path,
) -> None:
    is_whole_folder = file.path.endswith("/")
    if not is_whole_folder and not wanted(file.path):
        part.num_left_aside += 1
        return
    place = f"{part.where.rstrip('/')}/{_printable(file.path)}"
    problem = file.problem or _bad_name(file.path)
    if problem is not None:
        listing.reject(place, *problem)
        return
    source_id = f"{stem_of(file.path)}-{content_id(entry.name or entry.url, file.path, length=12)}"
    otherwise = entry.split or defaults.split
    source = Source(
        source_id=source_id,
        url=_address(entry.url, file, base),
        split=split_of(source_id, heldout_share=entry.heldout_share, otherwise=otherwise),
        title=defaults.title if entry.title is None else entry.title,
        author=defaults.author if entry.author is None else entry.author,
        license=defaults.license if entry.license is None else entry.license,
        size_bytes=file.size_bytes,
    )
    listing.add(source, place)


def _address(url: str, file: Found, base: Path) -> str:
    """What leads out of a folder beside the list is not served with it, so it is named by its whole path."""
    if scheme_of(url) == "file":
        return f"{url.rstrip('/')}/{quote(file.path)}"
    if url.startswith("~") or (file.leads_out and is_relative(url)):
        return str(_local(url, base) / file.path)
    return file.path if url in (".", "./") else f"{url.rstrip('/')}/{file.path}"


def _local(url: str, base: Path) -> Path:
    return base / Path(path_of(url)).expanduser()


def walk(root: Path, *, recursive: bool, follow_links: bool) -> Iterator[Found]:
    """Yield the files below ``root`` in the order of their paths; hidden ones are passed over.

    A folder that cannot be entered is yielded with a problem, its path ending with a slash. Every real
    folder is entered once, whatever links lead to it. Raises ``InputError`` when ``root`` is no folder.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}. Check folders.url of the source list.")
    real_root, seen, waiting = os.path.realpath(root), set(), [""]
    while waiting:
        inside = waiting.pop()
        folders = []
        try:
            status = (root / inside).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / inside) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield Found(inside + "/", problem=("unreadable", f"the folder cannot be read ({error.strerror})"))
            continue
        for entry in listed:
            if entry.name.startswith("."):
                continue
            found = _look(entry, inside + entry.name, real_root, follow_links=follow_links)
            if isinstance(found, Found):
                yield found
            elif found == "folder" and recursive:
                folders.append(f"{inside}{entry.name}/")
        waiting += reversed(folders)


def _look(entry: os.DirEntry[str], path: str, real_root: str, *, follow_links: bool) -> Found | str:
    """What an entry of a folder is: a file, ``"folder"``, or ``""`` for what is neither."""
    try:
        leads_out = False
        if entry.is_symlink() or follow_links:
            target = os.path.realpath(entry.path)
            leads_out = not (target + "/").startswith(real_root.rstrip("/") + "/")
        if entry.is_symlink():
            if not os.path.exists(entry.path):  # noqa: PTH110 (a name in bytes that are no text)
                return Found(path, problem=("missing", "the link leads to nothing"))
            if entry.is_dir() and not leads_out:
                return ""  # its files are listed where they are
            if leads_out and not follow_links:
                words = "the link leads out of the folder. If meant, set follow_links: true"
                return Found(path + "/" * entry.is_dir(), problem=("leads-outside", words))
        if entry.is_dir():
            return "folder"
        status = entry.stat()
        return Found(path, status.st_size, leads_out=leads_out) if stat.S_ISREG(status.st_mode) else ""
    except OSError as error:
        return Found(path, problem=("unreadable", f"the file cannot be looked at ({error.strerror})"))


def _in_bucket(url: str, *, recursive: bool) -> Iterator[Found]:
    from longvila.storage.s3 import S3Storage

    for key, size_bytes in S3Storage(url).sizes():
        if any(name.startswith(".") for name in key.split("/")) or ("/" in key and not recursive):
            continue
        yield Found(key, size_bytes)


def _bad_name(path: str) -> tuple[str, str] | None:
    try:
        path.encode()
    except UnicodeEncodeError:
        return "bad-name", "the name is not UTF-8 text. Rename the file"
    if re.search(r"[\x00-\x1f\x7f]", path):
        return "bad-name", "the name holds control characters. Rename the file"
    return None


def _printable(path: str) -> str:
    """A path that can be written down, whatever bytes are in it."""
    plain = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in plain)


def _matcher(pattern: str | None) -> Callable[[str], bool]:
    """Say of a path inside a folder whether it is meant. Small and capital letters are the same."""
    if pattern is None:
        return lambda path: os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES  # noqa: PTH122
    try:
        matches = re.compile(_as_regex(pattern), re.IGNORECASE | re.DOTALL).fullmatch
    except re.error as error:
        raise ConfigError(
            f"folders.pattern {pattern!r} cannot be read: {error}. Mend the brackets."
        ) from error
    if "/" in pattern:
        return lambda path: matches(path) is not None
    return lambda path: matches(path.rpartition("/")[2]) is not None


def _as_regex(pattern: str) -> str:
    """A glob pattern as a regular expression: ``**`` crosses folders, ``*`` and ``?`` do not."""
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL)
    known = {"**/": r"(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(known.get(token) or _class(token) for token in tokens)


def _class(token: str) -> str:
    """``[a-z]`` or ``[!a-z]`` as a regular expression has it; any other letter for itself."""
    if len(token) < 3:
        return re.escape(token)
    inside = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
    return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
