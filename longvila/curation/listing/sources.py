"""The sources of a build: what a list names one by one, and what its folders and tables hold."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from longvila.config.addresses import FETCHED_SCHEMES, is_relative, path_of, redacted, resolve_url, scheme_of
from longvila.config.sources import SourceList, TableEntry, entry_sources, read_source_list, source_list_path
from longvila.config.sourcing import FetchConfig
from longvila.curation.listing.folders import list_folder
from longvila.curation.listing.listing import Listing
from longvila.curation.listing.tables import list_table
from longvila.errors import ConfigError, InputError, ItemError, NetworkError
from longvila.records import Source


def list_sources(name_or_path: str | Path, *, scratch: Path, config: FetchConfig | None = None) -> Listing:
    """Read a source list, look into its folders and tables, and return every source of it.

    Relative paths stay relative to the list. Tables from elsewhere are fetched into ``scratch`` with the
    limits of ``config``. Raises ``InputError`` and ``ConfigError`` for what cannot be listed at all,
    ``NetworkError`` when a server does not answer; a single bad file or row is a rejection of the listing.
    """
    path = source_list_path(str(name_or_path))
    listed, base = read_source_list(str(name_or_path)), path.resolve().parent
    listing = Listing()
    if listed.sources:
        listing.begin("list", path.name)
    for source in _checked(listed, path):
        listing.add(source, f"{path.name} {source.source_id}")
    for folder in listed.folders:
        list_folder(listing, folder, listed.defaults, base=base)
    for table in listed.tables:
        with _local_table(table, base, scratch, config or FetchConfig()) as local:
            list_table(listing, table, listed.defaults, path=local)
    listing.sources[:] = [_reachable(source, base) for source in listing.sources]
    if not listing.sources:
        first = f" The first is {listing.rejections[0].detail}" if listing.rejections else ""
        raise InputError(
            f"The source list {path} comes to no source: {len(listing.rejections):,} rejected.{first} "
            "Check its folders and tables."
        )
    return listing


def load_sources(name_or_path: str | Path, *, base_url: str | None = None) -> list[Source]:
    """The sources that a list names one by one, with their addresses resolved.

    A path is put below ``base_url``, or below the list's own folder when that is None. Raises
    ``InputError`` when there is no such list, ``ConfigError`` for a wrong field of it.
    """
    path = source_list_path(str(name_or_path))
    base = path.resolve().parent if base_url is None else base_url
    return [
        source.model_copy(update={"url": resolve_url(source.url, base)})
        for source in _checked(read_source_list(str(name_or_path)), path)
    ]


def _reachable(source: Source, base: Path) -> Source:
    """A path that leads out of the list's folder, which alone is served, as a whole path."""
    if not (is_relative(source.url) and posixpath.normpath(source.url).startswith("..")):
        return source
    return source.model_copy(update={"url": posixpath.normpath(str(base / source.url))})


def _checked(listed: SourceList, path: Path) -> list[Source]:
    sources = entry_sources(listed, path)
    for source in sources:
        if "://" in source.url and scheme_of(source.url) not in FETCHED_SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in FETCHED_SCHEMES)
            raise ConfigError(
                f"source list {path}: {source.source_id} has the url {redacted(source.url)!r}. "
                f"Use a path or an address that begins with {known}."
            )
        if source.fetcher == "yt-dlp" and scheme_of(source.url) not in ("http", "https"):
            raise ConfigError(
                f"source list {path}: {source.source_id} is for yt-dlp, but {redacted(source.url)!r} is no "
                "page. Give its http(s) address, or leave fetcher out."
            )
    return sources


@contextmanager
def _local_table(table: TableEntry, base: Path, scratch: Path, config: FetchConfig) -> Iterator[Path]:
    """Give a local file with the table's content; what was fetched may hold secrets and is removed again."""
    if scheme_of(table.url) in ("", "file"):
        path = base / Path(path_of(table.url)).expanduser()
        if not path.is_file():
            raise InputError(f"There is no table {path}. Check tables.url of the source list.")
        yield path
        return
    from longvila.curation.fetching.fetch import download_to

    with TemporaryDirectory(dir=scratch) as folder:
        local = Path(folder) / (Path(path_of(table.url)).name[-80:] or "table")
        try:
            download_to(table.url, local, config=config)
        except ItemError as error:
            raised = NetworkError if error.reason in ("unreachable", "too-slow") else InputError
            raise raised(f"The table {redacted(table.url)} cannot be fetched: {error.detail}") from error
        yield local
