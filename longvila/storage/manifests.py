"""Manifests: Parquet files of records, one row each, that any SQL engine can query.

Texts, numbers and truth values are plain columns; anything nested is a column of JSON. Reading gives back
records that are equal to those written.
"""

from __future__ import annotations

import io
import json
import types
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from longvila.errors import InputError
from longvila.records import SCHEMA_VERSION, Record
from longvila.storage.base import Storage

RecordT = TypeVar("RecordT", bound=Record)

_CLASS_KEY = b"longvila.record"
_VERSION_KEY = b"longvila.schema_version"


def write_manifest(
    storage: Storage, key: str, records: Sequence[Record], *, cls: type[Record] | None = None
) -> None:
    """Write ``records``, all of one class, as one Parquet file, whole or absent.

    ``cls`` gives an empty manifest its columns. The same records give the same bytes.
    """
    storage.put_bytes(key, dump_manifest(records, cls=cls))


def read_manifest(storage: Storage, key: str, cls: type[RecordT]) -> list[RecordT]:
    """Read the records of a manifest; ``InputError`` when it is missing, damaged or of another class."""
    return load_manifest(storage.get_bytes(key), cls, name=key)


def dump_manifest(records: Sequence[Record], *, cls: type[Record] | None = None) -> bytes:
    """Return the Parquet file of ``records``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    cls = cls or (type(records[0]) if records else Record)
    if any(type(record) is not cls for record in records):
        raise TypeError(f"a manifest holds records of one class; this one began with {cls.__name__}")
    arrays, fields = [], []
    for name, info in cls.model_fields.items():
        column_type = _column_type(info.annotation)
        values = [getattr(record, name) for record in records]
        if column_type == "json":
            values = [_to_json(record, name) for record in records]
            fields.append(pa.field(name, pa.string(), metadata={b"encoding": b"json"}))
        else:
            fields.append(pa.field(name, column_type))
        arrays.append(pa.array(values, type=fields[-1].type))
    metadata = {_CLASS_KEY: cls.__name__.encode(), _VERSION_KEY: str(SCHEMA_VERSION).encode()}
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def load_manifest(data: bytes, cls: type[RecordT], *, name: str) -> list[RecordT]:
    """Return the records of a Parquet file; ``name`` is for error messages."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{name} is not a readable Parquet file ({error}). Delete it and run the step again."
        ) from error
    metadata = table.schema.metadata or {}
    found = metadata.get(_CLASS_KEY, b"unknown rows").decode()
    if found != cls.__name__ and table.num_rows:
        raise InputError(f"{name} holds {found}, not {cls.__name__}. Give the manifest of the right step.")
    columns = {}
    for field in table.schema:
        values = table.column(field.name).to_pylist()
        if (field.metadata or {}).get(b"encoding") == b"json":
            values = [json.loads(value) for value in values]
        columns[field.name] = values
    try:
        return [
            cls.model_validate({name: values[row] for name, values in columns.items()})
            for row in range(table.num_rows)
        ]
    except ValidationError as error:
        raise InputError(
            f"{name} does not fit {cls.__name__} of this version: {error}. Delete it and run the step again."
        ) from error


def _column_type(annotation: Any) -> Any:
    """The Arrow type of a plain field, or ``"json"`` for anything nested."""
    import pyarrow as pa

    if get_origin(annotation) in (Union, types.UnionType):
        options = [option for option in get_args(annotation) if option is not type(None)]
        return _column_type(options[0]) if len(options) == 1 else "json"
    if get_origin(annotation) is Literal:
        return pa.string() if all(isinstance(value, str) for value in get_args(annotation)) else "json"
    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}.get(annotation, "json")


def _to_json(record: Record, name: str) -> str:
    value = record.model_dump(mode="json", include={name})[name]
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
