"""Source lists: which videos a data set is built from, and under which terms.

A list is YAML: ``sources`` (each a ``Source``; ``source_id`` is the file's stem when it is not given) and
``defaults`` for fields that most entries share. A URL without a scheme is a path relative to the list itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from longvila.config.load import load_settings
from longvila.config.model import Settings
from longvila.config.roots import dataset_roots
from longvila.errors import ConfigError, InputError
from longvila.records import Source, Split


class SourceEntry(Settings):
    """A ``Source`` as it is written by hand: what is left out comes from ``defaults``."""

    source_id: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_-]+$", description="letters, digits, - and _"
    )
    url: str = Field(min_length=1)
    split: Split | None = None
    title: str | None = None
    author: str | None = None
    license: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    size_bytes: int | None = Field(default=None, ge=0)


class SourceDefaults(Settings):
    """What entries share unless they say otherwise."""

    split: Split = "train"
    title: str = ""
    author: str = ""
    license: str = ""


class SourceList(Settings):
    """The file's content."""

    name: str = ""
    description: str = ""
    defaults: SourceDefaults = SourceDefaults()
    sources: tuple[SourceEntry, ...] = Field(min_length=1)


def source_list_path(name_or_path: str) -> Path:
    """Find a source list by path, or by name as ``datasets/NAME/sources.yaml``. Raises ``InputError``."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"The source list {path} does not exist. Give the path of a YAML source list.")
        return path
    for root in dataset_roots():
        if (root / name_or_path / "sources.yaml").is_file():
            return root / name_or_path / "sources.yaml"
    known = sorted({found.parent.name for root in dataset_roots() for found in root.glob("*/sources.yaml")})
    if path.is_dir():
        raise InputError(f"There is no sources.yaml in the folder {path}. Write one, or name another list.")
    raise InputError(
        f"There is no source list {name_or_path!r}: neither a YAML file nor "
        f"datasets/{name_or_path}/sources.yaml. "
        f"Known names: {', '.join(known) or 'none'}."
    )


def load_sources(name_or_path: str) -> list[Source]:
    """Read a source list. Relative URLs stay as they are written; see ``resolve_url``."""
    path = source_list_path(name_or_path)
    listed = load_settings(path, SourceList, what="source list")
    sources = [_source(entry, listed.defaults) for entry in listed.sources]
    seen: dict[str, str] = {}
    for source in sources:
        if source.source_id in seen:
            raise ConfigError(
                f"source list {path}: {source.url} and {seen[source.source_id]} have the same source_id "
                f"{source.source_id!r}. Give one of them another."
            )
        seen[source.source_id] = source.url
    return sources


def is_relative(url: str) -> bool:
    """Whether a URL is a path relative to its source list."""
    return not urlsplit(url).scheme and not Path(url).is_absolute()


def resolve_url(url: str, base: str | Path) -> str:
    """Put a relative URL below ``base`` (an address, or the folder of the list); others stay."""
    if not is_relative(url):
        return url
    if isinstance(base, Path):
        return str(base / url)
    return f"{base.rstrip('/')}/{url}"


def _source(entry: SourceEntry, defaults: SourceDefaults) -> Source:
    values: dict[str, Any] = defaults.model_dump() | entry.model_dump(exclude_none=True)
    values.setdefault("source_id", _id_from(entry.url))
    return Source.model_validate(values)


def _id_from(url: str) -> str:
    stem = Path(urlsplit(url).path).stem
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in stem) or "source"
