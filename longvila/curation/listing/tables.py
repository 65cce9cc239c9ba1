"""Tables of sources: CSV, Parquet, JSONL, or one address in a line."""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath
from typing import Any, cast

from longvila.config.addresses import FETCHED_SCHEMES, canonical, is_relative, path_of, scheme_of, stem_of
from longvila.config.sources import SourceDefaults, TableEntry
from longvila.curation.listing.listing import Listing, safe_id, split_of
from longvila.curation.listing.table_rows import Row, format_of, read_rows
from longvila.records import Source, Split, content_id

MAX_URL = 8192
MAX_TEXT = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def list_table(listing: Listing, entry: TableEntry, defaults: SourceDefaults, *, path: Path) -> None:
    """Add the rows of a table, whose content lies in the local file ``path``, to ``listing``.

    A row that is wrong is rejected with the reason ``bad-row`` and its line, and the others go on. Raises
    ``ConfigError`` for a table without a column of addresses, ``InputError`` for one that cannot be read.
    """
    part = listing.begin("table", entry.url)
    table_format = entry.format if entry.format != "auto" else format_of(path_of(entry.url))
    shared = entry.model_copy(
        update={
            name: getattr(defaults, name)
            for name in ("split", "title", "author", "license")
            if getattr(entry, name) is None
        }
    )
    for row in read_rows(path, table_format, columns=entry.columns, delimiter=entry.delimiter):
        place = f"{part.where} {row.place}"
        try:
            source = _source(row, shared)
        except ValueError as error:
            listing.reject(place, "bad-row", f"{error}.")
        else:
            listing.add(source, place)


def _source(row: Row, shared: TableEntry) -> Source:
    """The source of a row. Raises ``ValueError`` that says what is wrong with it."""
    if row.problem:
        raise ValueError(row.problem)
    values = {field: _text(field, value) for field, value in row.values.items()}
    url = _address(values.get("url", ""), shared)
    source_id = safe_id(values.get("source_id", "")) if values.get("source_id") else ""
    if not source_id:
        source_id = f"{stem_of(url)}-{content_id('address', canonical(url), length=12)}"
    sha256 = values.get("sha256", "").lower()
    if sha256 and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"its sha256 {sha256[:80]!r} is not 64 hex digits")
    return Source(
        source_id=source_id,
        url=url,
        fetcher=shared.fetcher,
        split=_split(values.get("split", ""), source_id, shared),
        title=values.get("title") or shared.title or "",
        author=values.get("author") or shared.author or "",
        license=values.get("license") or shared.license or "",
        sha256=sha256 or None,
        size_bytes=_size(values.get("size_bytes", "")),
    )


def _text(field: str, value: Any) -> str:
    """A cell as text; "" for an empty one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, dict | list | tuple | bool):
        raise ValueError(f"its {field} is {str(value)[:80]!r}, no text")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with gaps is read as one of floats
    text = str(value).strip()
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"its {field} is not UTF-8 text. Save the table as UTF-8") from None
    if len(text) > (MAX_URL if field == "url" else MAX_TEXT):
        raise ValueError(f"its {field} has {len(text):,} characters")
    return text


def _address(value: str, shared: TableEntry) -> str:
    """The address of a row; a path is relative to the table."""
    url = f"{shared.url_prefix}{value}"
    if not value:
        raise ValueError("it has no url")
    if _CONTROL.search(url):
        raise ValueError("its url holds control characters")
    scheme = scheme_of(url)
    if "://" in url and scheme not in FETCHED_SCHEMES:
        known = ", ".join(f"{name}://" for name in FETCHED_SCHEMES)
        raise ValueError(f"its url begins with {url.partition('://')[0][:40]!r}. Use {known} or a path")
    if scheme and not url.partition("://")[2].strip("/"):
        raise ValueError("its url names no host")
    if shared.fetcher == "yt-dlp" and scheme not in ("http", "https"):
        raise ValueError("its url is no page for yt-dlp. Use http(s)://, or set url_prefix")
    table_scheme = scheme_of(shared.url)
    if table_scheme not in ("", "file") and (scheme == "file" or (not scheme and url.startswith(("/", "~")))):
        raise ValueError("its url is a file of this machine, which a table from elsewhere may not name")
    if is_relative(url):
        return _beside(shared.url, url)
    return url


def _beside(table_url: str, path: str) -> str:
    """Put a relative path below the folder of the table."""
    main = table_url.partition("?")[0] if scheme_of(table_url) in ("http", "https") else table_url
    folder, slash, _ = main.rpartition("/")
    return str(PurePosixPath(path)) if not slash else f"{folder}/{PurePosixPath(path)}"


def _split(value: str, source_id: str, shared: TableEntry) -> Split:
    if not value:
        return split_of(source_id, heldout_share=shared.heldout_share, otherwise=shared.split or "train")
    if value.lower() not in ("train", "heldout"):
        raise ValueError(f"its split {value[:40]!r} is neither train nor heldout")
    return cast(Split, value.lower())


def _size(value: str) -> int | None:
    if not value:
        return None
    if not re.fullmatch(r"[0-9]{1,18}(\.0+)?", value):
        raise ValueError(f"its size_bytes {value[:40]!r} is not a whole number")
    return int(value.partition(".")[0])
