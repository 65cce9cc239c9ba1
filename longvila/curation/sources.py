"""The source list of a build, with every relative address put below the place where the files are served."""

from __future__ import annotations

from pathlib import Path

from longvila.config.sources import load_sources as read_list
from longvila.config.sources import resolve_url, source_list_path
from longvila.errors import ConfigError
from longvila.records import Source

_SCHEMES = ("http://", "https://", "s3://", "file://")


def load_sources(name_or_path: str | Path, *, base_url: str | None = None) -> list[Source]:
    """Read a source list and resolve its URLs.

    A URL without a scheme is put below ``base_url``, or below the list's own folder when that is None.
    Raises ``InputError`` when there is no such list, ``ConfigError`` for a wrong field of it.
    """
    path = source_list_path(str(name_or_path))
    base = path.resolve().parent if base_url is None else base_url
    sources = []
    for source in read_list(str(name_or_path)):
        url = resolve_url(source.url, base)
        if "://" in url and not url.startswith(_SCHEMES):
            raise ConfigError(
                f"source list {path}: {source.source_id} has the url {redacted(url)!r}. "
                f"Use a path or an address that begins with {', '.join(_SCHEMES)}."
            )
        sources.append(source.model_copy(update={"url": url}))
    return sources


def redacted(url: str) -> str:
    """Return a URL without its user name, password and query, which may hold secrets."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    rest = rest.partition("?")[0].partition("#")[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
