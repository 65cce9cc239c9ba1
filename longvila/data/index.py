"""The index of a data set: one row per sample, with the place of its bytes. It is written last.

``index.parquet`` names the tars; what it does not name does not count. From it alone one knows each sample's
number of frames and length of text, so that order and packing need no shard to be opened.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from longvila.data.parts import Place
from longvila.errors import InputError
from longvila.records import SCHEMA_VERSION, Record, ShardRecord, Split
from longvila.storage import Storage

INDEX_FILE = "index.parquet"
_TEXT_COLUMNS = ("key", "split", "kind", "video_id", "shard", "sha256")
_FOREIGN_COLUMNS = ("media", "json_file")  # absent where all are empty
_NUMBER_COLUMNS = (
    "offset", "size", "json_offset", "json_size", "frames_offset", "frames_size",
    "offsets_offset", "offsets_size", "num_frames", "text_chars",
)  # fmt: skip


class IndexRow(NamedTuple):
    """One sample. Offsets and sizes are bytes in its shard; without frames theirs are 0.

    In a foreign tar ``media`` says what lies at ``frames_offset``, and the record lies in ``json_file``.
    """

    key: str
    split: str
    kind: str
    video_id: str
    shard: str
    sha256: str
    offset: int
    size: int
    json_offset: int
    json_size: int
    frames_offset: int
    frames_size: int
    offsets_offset: int
    offsets_size: int
    num_frames: int
    text_chars: int
    media: str = ""
    json_file: str = ""

    @property
    def json_place(self) -> Place:
        """Where the record lies."""
        return Place(self.json_offset, self.json_size)

    @property
    def frames_place(self) -> Place:
        """Where the JPEGs lie, or the video or picture of a foreign tar."""
        return Place(self.frames_offset, self.frames_size)

    @property
    def offsets_place(self) -> Place:
        """Where the array of JPEG offsets lies."""
        return Place(self.offsets_offset, self.offsets_size)


class DatasetIndexRef(Record):
    """What names a finished data set."""

    name: str
    folder: str
    index_hash: str
    num_samples: int
    num_frames: int
    shards: tuple[ShardRecord, ...]


@dataclass(frozen=True)
class Index:
    """The rows of a data set, or of some of them, as columns."""

    name: str
    folder: str
    shards: tuple[ShardRecord, ...]
    columns: dict[str, np.ndarray] = field(repr=False)

    def __len__(self) -> int:
        return len(self.columns["key"])

    def row(self, i: int) -> IndexRow:
        """Return one sample's row."""
        texts = [str(self.columns[name][i]) for name in _TEXT_COLUMNS]
        numbers = [int(self.columns[name][i]) for name in _NUMBER_COLUMNS]
        foreign = [str(self.columns[name][i]) for name in _FOREIGN_COLUMNS]
        return IndexRow._make([*texts, *numbers, *foreign])

    @property
    def num_frames(self) -> np.ndarray:
        """Frames of each sample, int64."""
        return self.columns["num_frames"]

    @cached_property
    def hash(self) -> str:
        """A hash of the samples' content and order: the same samples in the same order have the same hash."""
        digest = hashlib.sha256(self.name.encode())
        for key, sha256 in zip(self.columns["key"], self.columns["sha256"], strict=True):
            digest.update(f"{key}:{sha256};".encode())
        return digest.hexdigest()

    def select(self, split: Split) -> Index:
        """Return the rows of one split."""
        chosen = self.columns["split"] == split
        named = set(self.columns["shard"][chosen])
        shards = tuple(shard for shard in self.shards if shard.name in named)
        return Index(
            self.name, self.folder, shards, {name: col[chosen] for name, col in self.columns.items()}
        )

    def ref(self) -> DatasetIndexRef:
        """Return the record that names this data set."""
        return DatasetIndexRef(
            name=self.name,
            folder=self.folder,
            index_hash=self.hash,
            num_samples=len(self),
            num_frames=int(self.num_frames.sum()),
            shards=self.shards,
        )

    def key_of(self, file: str) -> str:
        """Return the storage key of one of the data set's files."""
        return f"{self.folder}/{file}" if self.folder else file


def make_index(name: str, folder: str, rows: list[IndexRow], shards: tuple[ShardRecord, ...]) -> Index:
    """Return an index of ``rows``."""
    columns: dict[str, np.ndarray] = {}
    for number, column in enumerate(IndexRow._fields):
        values = [row[number] for row in rows]
        columns[column] = np.array(values, dtype=np.int64 if column in _NUMBER_COLUMNS else object)
    return Index(name, folder, shards, columns)


def dataset_folder(name: str) -> str:
    """Return where a workspace keeps the data set of that name."""
    return f"shards/{name}"


def open_index(storage: Storage, name: str, *, folder: str | None = None) -> Index:
    """Read the index of a data set.

    It lies in ``shards/{name}`` of a workspace's storage; ``folder`` names another place (``""``: the storage
    is the data set's folder). Raises ``InputError`` when it is missing or damaged.
    """
    folder = dataset_folder(name) if folder is None else folder
    key = f"{folder}/{INDEX_FILE}" if folder else INDEX_FILE
    if not storage.exists(key):
        raise InputError(
            f"There is no data set {name!r} at {storage.url}/{folder}: it has no {INDEX_FILE}. "
            "Build it first (longvila flow run build-dataset), or name another."
        )
    return load_index(storage.get_bytes(key), folder=folder, where=f"{storage.url}/{key}")


def dump_index(index: Index) -> bytes:
    """Return the Parquet file of an index; the same index gives the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {name: pa.string() for name in _TEXT_COLUMNS} | {name: pa.int64() for name in _NUMBER_COLUMNS}
    types |= {name: pa.string() for name in _FOREIGN_COLUMNS if any(index.columns[name])}
    arrays = {name: pa.array(index.columns[name].tolist(), type=kind) for name, kind in types.items()}
    about = {
        "name": index.name,
        "schema_version": SCHEMA_VERSION,
        "index_hash": index.hash,
        "shards": [shard.model_dump() for shard in index.shards],
    }
    table = pa.table(arrays).replace_schema_metadata({"longvila.dataset": json.dumps(about)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def load_index(data: bytes, *, folder: str, where: str) -> Index:
    """Return the index in a Parquet file; ``where`` is for error messages."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(data)).read()  # read_table would load pyarrow's dataset part
        about: dict[str, Any] = json.loads((table.schema.metadata or {})[b"longvila.dataset"])
        shards = tuple(ShardRecord.model_validate(shard) for shard in about["shards"])
        columns = {name: np.array(table.column(name).to_pylist(), dtype=object) for name in _TEXT_COLUMNS}
        for name in _NUMBER_COLUMNS:
            columns[name] = _numbers(table.column(name).chunks)
        for name in _FOREIGN_COLUMNS:
            values = table.column(name).to_pylist() if name in table.column_names else [""] * len(table)
            columns[name] = np.array(values, dtype=object)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, BufferError) as error:
        raise InputError(
            f"{where} is not the index of a data set ({type(error).__name__}: {error}). "
            "Build the data set again."
        ) from error
    index = Index(about["name"], folder, shards, columns)
    if index.hash != about["index_hash"]:
        raise InputError(
            f"{where} is damaged: its rows do not have the hash it names. Build the data set again."
        )
    return index


def _numbers(chunks: list[Any]) -> np.ndarray:
    """Return a column as int64. Arrow's own way would load pandas, which takes longer than all the rest."""
    parts = [np.from_dlpack(chunk).astype(np.int64) for chunk in chunks]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
