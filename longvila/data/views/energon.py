"""Energon's ``.nv-meta`` beside our own tars: what ``energon prepare`` would make, without that package.

The tars are read as they are, as a ``CrudeWebdataset``; ``energon_cooker`` turns its samples into frames.
``.info.json``, without which Energon does not open the folder, is written last.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from longvila.data.index import Index
from longvila.data.parts import Place
from longvila.data.tar_members import members
from longvila.records import Split
from longvila.storage import Storage

FOLDER = ".nv-meta"
INFO_FILE = f"{FOLDER}/.info.json"
_PARTS_OF = {"train": "train", "heldout": "val"}
_DATASET_YAML = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
_TABLES = """
CREATE TABLE samples (tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE,
    sample_index INTEGER NOT NULL, byte_offset INTEGER, byte_size INTEGER);
CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT,
    content_byte_offset INTEGER, content_byte_size INTEGER);
"""
_INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full ON sample_parts(
    tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size);
"""


class _Part(NamedTuple):
    sample_index: int
    name: str
    place: Place


def write_energon(storage: Storage, index: Index, splits: tuple[Split, ...], scratch: Path) -> dict[str, int]:
    """Write the metadata of the chosen splits: ``train`` is Energon's train, ``heldout`` its val."""
    storage.delete(index.key_of(INFO_FILE))
    shards = [(split, shard) for split in splits for shard in index.select(split).shards]
    path = scratch / "index.sqlite"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(_TABLES)
        for number, (_, shard) in enumerate(shards):
            _add_shard(database, storage, index, shard.name, number)
        database.executescript(_INDEXES)
        database.commit()
    storage.put_file(index.key_of(f"{FOLDER}/index.sqlite"), path)
    parts = {
        part: [shard.name for split, shard in shards if _PARTS_OF[split] == part] for part in ("train", "val")
    }
    info = {"energon_version": None, "shard_counts": {shard.name: shard.num_samples for _, shard in shards}}
    texts = {
        f"{FOLDER}/index.uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{index.hash}{splits}")),
        f"{FOLDER}/dataset.yaml": _DATASET_YAML,
        f"{FOLDER}/split.yaml": json.dumps({"split_parts": {**parts, "test": []}, "exclude": []}) + "\n",
        INFO_FILE: json.dumps(info, indent=1),
    }
    for name, text in texts.items():
        storage.put_bytes(index.key_of(name), text.encode())
    return {name: len(text.encode()) for name, text in texts.items()}


def _add_shard(database: sqlite3.Connection, storage: Storage, index: Index, shard: str, number: int) -> None:
    numbers = [i for i, name in enumerate(index.columns["shard"]) if name == shard]
    rows = [index.row(i) for i in numbers]
    database.executemany(
        "INSERT INTO samples VALUES (?, ?, ?, ?, ?)",
        ((number, row.key, at, row.offset, row.size) for at, row in enumerate(rows)),
    )
    at_of = {row.key: at for at, row in enumerate(rows)}
    database.executemany(
        "INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)",
        (
            (number, part.sample_index, part.name, *part.place)
            for part in _parts(storage, index, shard, at_of)
        ),
    )
    starts = [*(row.offset for row in rows), rows[-1].offset + rows[-1].size]
    storage.put_bytes(index.key_of(f"{shard}.idx"), struct.pack(f"={len(starts)}Q", *starts))


def _parts(storage: Storage, index: Index, shard: str, at_of: dict[str, int]) -> Iterator[_Part]:
    for member in members(storage, index.key_of(shard)):
        key, _, name = member.name.partition(".")
        yield _Part(at_of[key], name, member.place)
