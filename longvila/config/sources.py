"""Source lists: which videos a data set is built from, and under which terms.

A list is YAML: ``sources`` (each a ``Source``; ``source_id`` is the file's stem when it is not given),
``folders`` and ``tables`` that stand for many sources each, and ``defaults`` for fields that most entries
share. An address without a scheme is a path relative to the list itself. Only what the file says is read
here: folders and tables are looked into when a flow runs, see ``longvila.curation.listing.sources``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from longvila.config.addresses import is_relative, redacted, stem_of
from longvila.config.load import load_settings
from longvila.config.model import Settings
from longvila.config.roots import dataset_roots
from longvila.errors import ConfigError, InputError
from longvila.records import Source, Split

ID_PATTERN = r"^[A-Za-z0-9_-]{1,120}$"

Fetcher = Literal["auto", "yt-dlp"]
TableFormat = Literal["auto", "csv", "parquet", "jsonl", "lines"]


class SourceEntry(Settings):
    """A ``Source`` as it is written by hand: what is left out comes from ``defaults``."""

    source_id: str | None = Field(
        default=None, pattern=ID_PATTERN, description="letters, digits, - and _; at most 120"
    )
    url: str = Field(min_length=1)
    fetcher: Fetcher = "auto"
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


class ManyEntry(Settings):
    """What a folder and a table have in common: many sources, and what those share."""

    url: str = Field(min_length=1, description="a path, file:// or s3://; for a table also http(s)://")
    split: Split | None = None
    title: str | None = None
    author: str | None = None
    license: str | None = None
    heldout_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the sources, chosen by a hash of their id, that is held out; growth moves none",
    )

    @model_validator(mode="after")
    def _one_way_to_split(self) -> ManyEntry:
        if self.heldout_share and self.split == "heldout":
            raise ValueError(
                f"split='heldout' holds out all, so heldout_share={self.heldout_share:g} says nothing. "
                "Give one of them"
            )
        return self


class FolderEntry(ManyEntry):
    """Every video in a local folder or below an S3 prefix."""

    name: str | None = Field(
        default=None,
        pattern=ID_PATTERN,
        description="ids are made of it and the paths inside; none: of url, so that another url changes them",
    )
    pattern: str | None = Field(
        default=None,
        min_length=1,
        description="which files: '*.mp4' looks at names, 'talks/**/*.webm' at paths inside the folder; "
        "none: every file with the ending of a video",
    )
    recursive: bool = Field(default=True, description="also what lies in folders inside it")
    follow_links: bool = Field(default=False, description="also links that lead out of the folder")


class TableColumns(Settings):
    """Which column (in JSONL also a dotted path) holds which field. None: the column of that name, if any."""

    url: str | None = None
    source_id: str | None = None
    split: str | None = None
    title: str | None = None
    author: str | None = None
    license: str | None = None
    sha256: str | None = None
    size_bytes: str | None = None


class TableEntry(ManyEntry):
    """A CSV, Parquet or JSONL file with one source in a row, or a text file with one address in a line."""

    format: TableFormat = Field(default="auto", description="auto: by the file's ending; .gz may follow it")
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="of a CSV file; none: found from its first line"
    )
    columns: TableColumns = TableColumns()
    url_prefix: str = Field(
        default="", description="text before every value of url, e.g. https://www.youtube.com/watch?v="
    )
    fetcher: Fetcher = "auto"


class SourceList(Settings):
    """The file's content."""

    name: str = ""
    description: str = ""
    defaults: SourceDefaults = SourceDefaults()
    sources: tuple[SourceEntry, ...] = ()
    folders: tuple[FolderEntry, ...] = ()
    tables: tuple[TableEntry, ...] = ()

    @model_validator(mode="after")
    def _lists_something(self) -> SourceList:
        if not (self.sources or self.folders or self.tables):
            raise ValueError("it lists nothing: at least 1 must be given of sources, folders and tables")
        return self

    @property
    def is_open(self) -> bool:
        """Whether some sources are only known when folders and tables are looked into."""
        return bool(self.folders or self.tables)

    @property
    def may_hold_out(self) -> bool:
        """Whether a folder or table can give sources that are held out."""
        many = (*self.folders, *self.tables)
        default = self.defaults.split
        return any(entry.heldout_share or (entry.split or default) == "heldout" for entry in many) or bool(
            self.tables
        )

    @property
    def has_relative(self) -> bool:
        """Whether the folder of the list has to be served while its sources are fetched."""
        return any(is_relative(entry.url) for entry in (*self.sources, *self.folders, *self.tables))


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


def read_source_list(name_or_path: str) -> SourceList:
    """Read what a source list says. Raises ``InputError`` without one, ``ConfigError`` for a wrong field."""
    return load_settings(source_list_path(name_or_path), SourceList, what="source list")


def load_sources(name_or_path: str) -> list[Source]:
    """The sources that a list names one by one. Relative addresses stay as written; see ``resolve_url``."""
    return entry_sources(read_source_list(name_or_path), source_list_path(name_or_path))


def entry_sources(listed: SourceList, path: Path) -> list[Source]:
    """The ``sources`` of a list that lies at ``path``. Raises ``ConfigError`` for two of one id."""
    sources = [_source(entry, listed.defaults) for entry in listed.sources]
    seen: dict[str, int] = {}
    for number, source in enumerate(sources):
        if source.source_id in seen:
            first = seen[source.source_id]
            raise ConfigError(
                f"source list {path}: {redacted(source.url)} and {redacted(sources[first].url)} have the "
                f"same source_id {source.source_id!r}. Give one of them another."
            )
        seen[source.source_id] = number
    return sources


def _source(entry: SourceEntry, defaults: SourceDefaults) -> Source:
    values: dict[str, Any] = defaults.model_dump() | entry.model_dump(exclude_none=True)
    values.setdefault("source_id", stem_of(entry.url))
    return Source.model_validate(values)
