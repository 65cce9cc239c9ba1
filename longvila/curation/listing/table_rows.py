"""The rows of a table of sources, one after another, whatever is wrong with some of them.

A row that cannot be read is yielded with what is wrong; the rows behind it are read as if it were not there.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from longvila.config.sources import TableColumns
from longvila.errors import ConfigError, InputError
from longvila.storage.files import os_errors

MAX_LINE = 1 << 20  # characters; what is longer is no row of a table of addresses
MAX_LINES_OF_ROW = 200
_DELIMITERS = ",;\t|"
_SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "lines", ".lst": "lines",
}  # fmt: skip


class Row(NamedTuple):
    """One row: where it is, for messages, its values by field, and what is wrong with it, if anything."""

    place: str
    values: dict[str, Any]
    problem: str = ""


class RowTooLong(Exception):
    """So many lines without an end of the row: a quote was opened and not closed."""


def format_of(name: str) -> str:
    """The format of a table by the ending of its name. Raises ``ConfigError`` for one that is not known."""
    plain = name.lower().removesuffix(".gz")
    for suffix, found in _SUFFIXES.items():
        if plain.endswith(suffix):
            return found
    raise ConfigError(
        f"The table {name} has none of the endings {', '.join(_SUFFIXES)}. "
        "Say what it is with format: csv, parquet, jsonl or lines."
    )


def read_rows(
    path: Path, table_format: str, *, columns: TableColumns, delimiter: str | None
) -> Iterator[Row]:
    """Yield the rows of a local file, with their values under the names of the fields of a source.

    Raises ``ConfigError`` when a column is missing, ``InputError`` when the file cannot be read.
    """
    if table_format == "parquet":
        yield from _parquet_rows(path, columns)
        return
    with os_errors(f"read {path}"), _open(path) as file, _readable(path):
        lines = _lines(file)
        if table_format == "csv":
            yield from _csv_rows(lines, columns, delimiter, name=path.name)
        elif table_format == "jsonl":
            yield from _json_rows(lines, columns)
        else:
            yield from _line_rows(lines)


@contextmanager
def _open(path: Path) -> Iterator[io.TextIOBase]:
    """Open a text file, packed or not, in UTF-8 or marked as UTF-16; bad bytes are kept as surrogates."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        binary = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
        head = binary.read(2)
        binary.seek(0)
        encoding = "utf-16" if head in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        errors = "replace" if encoding == "utf-16" else "surrogateescape"
        yield io.TextIOWrapper(cast(Any, binary), encoding=encoding, errors=errors, newline="\n")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"The table {path} is packed, and cut short or damaged ({error}). Fetch it again."
        ) from error


def _lines(file: io.TextIOBase) -> Iterator[str]:
    """Yield lines with their ends; of one that is far too long only the beginning, without its end."""
    while line := file.readline(MAX_LINE):
        yield line
        while not line.endswith("\n"):
            line = file.readline(MAX_LINE)
            if not line:
                return


class _Again:
    """Lines one after another; those of the row at hand are kept, to be read once more without its first."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._waiting: deque[str] = deque()
        self._held: list[str] = []
        self.number = 1  # of the first line of the row at hand

    def __iter__(self) -> _Again:
        return self

    def __next__(self) -> str:
        if len(self._held) >= MAX_LINES_OF_ROW:
            raise RowTooLong
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self._held.append(line)
        return line

    def done(self) -> None:
        """The row at hand is whole."""
        self.number += len(self._held)
        self._held.clear()

    def give_up(self) -> None:
        """The row at hand cannot be read: what is behind its first line comes again."""
        self._waiting.extendleft(reversed(self._held[1:]))
        self.number += 1
        self._held.clear()


def _csv_rows(
    lines: Iterator[str], columns: TableColumns, delimiter: str | None, *, name: str
) -> Iterator[Row]:
    again = _Again(lines)
    first = next((line for line in again if line.strip()), "")
    delimiter = delimiter or _delimiter_of(first, columns.url or "url")
    header = _header_cells(first, delimiter)
    places = {field: header.index(column) for field, column in choose_columns(header, columns, name).items()}
    again.done()
    for place, cells, problem in _records(again, delimiter, len(header)):
        yield Row(place, {field: cells[index] for field, index in places.items()} if cells else {}, problem)


def _records(again: _Again, delimiter: str, num_fields: int) -> Iterator[tuple[str, list[str], str]]:
    """Yield (place, cells, problem); after a problem, reading begins anew in the next line."""
    while True:
        reader = csv.reader(again, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                if cells and len(cells) != num_fields:
                    problem = f"it has {len(cells)} fields, the first line names {num_fields}"
                    break
                place = f"line {again.number}"
                again.done()
                if cells:
                    yield place, cells, ""
            else:
                return
        except RowTooLong:
            problem = "a quote is opened and not closed"
        except csv.Error as error:
            problem = f"its quotes do not match ({error})"
        place = f"line {again.number}"
        again.give_up()
        yield place, [], problem


def _delimiter_of(first: str, url_column: str) -> str:
    """The delimiter with which the first line names the column of addresses, and most others."""

    def fitness(delimiter: str) -> tuple[bool, int]:
        cells = _header_cells(first, delimiter)
        return url_column in cells, len(cells)

    return max(_DELIMITERS, key=fitness)


def _header_cells(first: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
    except csv.Error:  # no text at all
        return []


def choose_columns(header: Sequence[str], columns: TableColumns, name: str) -> dict[str, str]:
    """Return which column holds which field.

    Raises ``ConfigError`` when one that is named, or that of the addresses, is not there, or there twice.
    """
    chosen = {}
    for field, named in columns.model_dump().items():
        column = named or field
        if header.count(column) == 1:
            chosen[field] = column
        elif named or field == "url" or column in header:
            fault = "more than one column" if column in header else "no column"
            shown = ", ".join(repr(cell) for cell in header[:20])
            raise ConfigError(
                f"The table {name} has {fault} {column!r}; it has {shown or 'none at all'}. "
                f"Say which column is which with columns: {{{field}: NAME}}; a file with one address in a "
                "line is format: lines."
            )
    return chosen


def _json_rows(lines: Iterator[str], columns: TableColumns) -> Iterator[Row]:
    names = {field: named or field for field, named in columns.model_dump().items()}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Row(place, {}, f"it is no JSON ({str(error)[:100]})")
            continue
        if isinstance(values, dict):
            yield Row(place, {field: _inside(values, name) for field, name in names.items()})
        else:
            yield Row(place, {}, "it is no JSON object")


def _inside(values: dict[str, Any], name: str) -> Any:
    """The value of a name, or of a dotted path into objects; None without it."""
    if name in values:
        return values[name]
    found: Any = values
    for key in name.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _line_rows(lines: Iterator[str]) -> Iterator[Row]:
    """One address in a line; # begins a comment line."""
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            yield Row(f"line {number}", {"url": line})


def _parquet_rows(path: Path, columns: TableColumns) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            chosen = choose_columns(file.schema_arrow.names, columns, path.name)
            number = 0
            for batch in file.iter_batches(batch_size=8192, columns=list(chosen.values())):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"row {number}", {field: values[column] for field, column in chosen.items()})
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The table {path} is not a readable Parquet file ({error}). Write it anew."
        ) from error
