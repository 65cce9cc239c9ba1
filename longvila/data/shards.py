"""Data sets as WebDataset tars that are byte-identical when rebuilt.

``shards/{name}/{name}-{split}-000000.tar …``, ``wids-meta.json`` of the training split (of the other it is
``wids-meta-heldout.json``, so that no reader trains on it by accident), and ``index.parquet``, written last.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from longvila.data.index import (
    INDEX_FILE,
    DatasetIndexRef,
    Index,
    IndexRow,
    dataset_folder,
    dump_index,
    make_index,
    open_index,
)
from longvila.data.parts import (
    FRAMES,
    JSON,
    OFFSETS,
    Place,
    SampleWithFrames,
    TarWriter,
    parts_of,
    sample_hash,
)
from longvila.errors import InputError
from longvila.records import ShardRecord, Split
from longvila.storage import Storage
from longvila.storage.files import PART_SUFFIX, os_errors

logger = logging.getLogger(__name__)

DEFAULT_TARGET_BYTES = 512 * 2**20
_STALE_S = 3600.0  # a write that goes on touches its file more often


class _Shard(NamedTuple):
    record: ShardRecord
    rows: list[IndexRow]


def write_dataset(
    storage: Storage,
    name: str,
    split: Split,
    samples: Iterable[SampleWithFrames],
    *,
    target_bytes: int = DEFAULT_TARGET_BYTES,
) -> DatasetIndexRef:
    """Write the samples of one split, in their order, as tars of at most ``target_bytes`` (or one sample).

    The other split's samples stay. A tar that lies there already with the same content is not written again;
    tars that no longer belong are removed at the end. Two samples are held in memory at a time. The splits of
    one data set are written one after the other, not at once. Raises ``InputError`` for a key that comes
    twice, a name that cannot be a file's, or no sample at all.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise InputError(f"{name!r} cannot name a data set: use letters, digits, '-' and '_'.")
    before = _index_before(storage, name)
    kept_rows = [row for row in map(before.row, range(len(before))) if row.split != split]
    kept_shards = [shard for shard in before.shards if not _is_of(shard, name, split)]
    known = {shard.name: shard for shard in before.shards}
    written = list(
        _write_shards(storage, name, split, _Stream(samples, split, kept_rows), target_bytes, known)
    )
    if not written:
        raise InputError(
            f"Data set {name!r} would have no sample in split {split!r}. Look at what was rejected."
        )
    rows = [row for shard in written for row in shard.rows]
    shards = [shard.record for shard in written]
    first, second = (rows, kept_rows) if split == "train" else (kept_rows, rows)
    first_shards, second_shards = (shards, kept_shards) if split == "train" else (kept_shards, shards)
    index = make_index(name, before.folder, first + second, (*first_shards, *second_shards))
    for one in ("train", "heldout"):
        _write_wids(storage, index, one)
    if index.shards != before.shards:
        _remove_energon(storage, index)
    _put_if_changed(storage, index.key_of(INDEX_FILE), dump_index(index))
    _remove_leftovers(storage, index)
    return index.ref()


def _index_before(storage: Storage, name: str) -> Index:
    folder = dataset_folder(name)
    if storage.exists(f"{folder}/{INDEX_FILE}"):
        try:
            return open_index(storage, name)
        except InputError as error:
            logger.warning("%s It is written anew.", error)
    return make_index(name, folder, [], ())


def _is_of(shard: ShardRecord, name: str, split: Split) -> bool:
    return shard.name.startswith(f"{name}-{split}-")


class _Stream:
    """The samples of one split, checked, with a look at the next one's parts."""

    def __init__(self, samples: Iterable[SampleWithFrames], split: Split, taken: list[IndexRow]) -> None:
        self._samples = iter(samples)
        self._split = split
        self._seen = {row.key for row in taken}
        self.next = self._take()

    def pop(self) -> tuple[SampleWithFrames, dict[str, bytes]]:
        """Return the next sample and its parts, and look at the one after."""
        assert self.next is not None
        item, self.next = self.next, self._take()
        return item

    def _take(self) -> tuple[SampleWithFrames, dict[str, bytes]] | None:
        item = next(self._samples, None)
        if item is None:
            return None
        sample = item.sample
        if sample.split != self._split:
            raise InputError(
                f"Sample {sample.key!r} belongs to split {sample.split!r}, but {self._split!r} is written. "
                "Give each split its own samples."
            )
        if sample.key in self._seen:
            raise InputError(
                f"The key {sample.key!r} comes twice in one data set. Make keys unique over both splits."
            )
        self._seen.add(sample.key)
        return item, parts_of(item)


def _write_shards(
    storage: Storage,
    name: str,
    split: Split,
    stream: _Stream,
    target_bytes: int,
    known: dict[str, ShardRecord],
) -> Iterator[_Shard]:
    number = 0
    while stream.next is not None:
        file_name = f"{name}-{split}-{number:06d}.tar"
        key = f"{dataset_folder(name)}/{file_name}"
        with _part_file(storage, key) as part:
            shard = _write_shard(part, file_name, stream, target_bytes)
            record = shard.record
            unchanged = known.get(file_name) == record and storage.exists(key)
            if not (unchanged and storage.size(key) == record.size_bytes):
                _store(storage, key, part)
        yield shard
        number += 1


def _write_shard(part: Path, file_name: str, stream: _Stream, target_bytes: int) -> _Shard:
    """Write one tar from the stream: at least one sample, and more while they fit."""
    rows: list[IndexRow] = []
    with part.open("wb") as file:
        writer = TarWriter(file)
        while stream.next is not None:
            size = sum(map(len, stream.next[1].values()))
            if rows and writer.size_bytes + size > target_bytes:
                break
            item, parts = stream.pop()
            with os_errors(f"write {part}"):
                rows.append(_add_sample(writer, file_name, item, parts))
        with os_errors(f"write {part}"):
            sha256 = writer.close()
            file.flush()
    record = ShardRecord(
        name=file_name,
        size_bytes=writer.size_bytes,
        sha256=sha256,
        num_samples=len(rows),
        num_frames=sum(row.num_frames for row in rows),
        first_key=rows[0].key,
        last_key=rows[-1].key,
    )
    return _Shard(record, rows)


def _add_sample(writer: TarWriter, shard: str, item: SampleWithFrames, parts: dict[str, bytes]) -> IndexRow:
    sample = item.sample
    start = writer.size_bytes
    places = {extension: writer.add(f"{sample.key}.{extension}", data) for extension, data in parts.items()}
    nowhere = Place(0, 0)
    return IndexRow(
        key=sample.key,
        split=sample.split,
        kind=sample.kind,
        video_id=sample.video_id or "",
        shard=shard,
        sha256=sample_hash(parts),
        offset=start,
        size=writer.size_bytes - start,
        json_offset=places[JSON].offset,
        json_size=places[JSON].size,
        frames_offset=places.get(FRAMES, nowhere).offset,
        frames_size=places.get(FRAMES, nowhere).size,
        offsets_offset=places.get(OFFSETS, nowhere).offset,
        offsets_size=places.get(OFFSETS, nowhere).size,
        num_frames=sample.num_frames,
        text_chars=sum(len(turn.text) for turn in sample.conversations),
    )


@contextmanager
def _part_file(storage: Storage, key: str) -> Iterator[Path]:
    """Give a path to write a tar to: beside its place when that is local, else in the temporary folder."""
    target = storage.local_path(key)
    folder = target.parent if target else Path(tempfile.gettempdir())
    part = folder / f".{Path(key).name}.{secrets.token_hex(6)}{PART_SUFFIX}"
    with os_errors(f"write {part}"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _store(storage: Storage, key: str, part: Path) -> None:
    target = storage.local_path(key)
    if target is None:
        storage.put_file(key, part)
        return
    with os_errors(f"write {target}"):
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)


def _write_wids(storage: Storage, index: Index, split: Split) -> None:
    """Write the shard list that the wids reader takes, unless the split is empty."""
    shards = [
        {"url": shard.name, "nsamples": shard.num_samples, "filesize": shard.size_bytes}
        for shard in index.shards
        if _is_of(shard, index.name, split)
    ]
    meta = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": index.name, "shardlist": shards}
    if shards:
        data = json.dumps(meta, indent=1).encode()
        _put_if_changed(storage, index.key_of(_wids_file(split)), data)


def _wids_file(split: Split) -> str:
    return "wids-meta.json" if split == "train" else f"wids-meta-{split}.json"


def _put_if_changed(storage: Storage, key: str, data: bytes) -> None:
    if not (storage.exists(key) and storage.get_bytes(key) == data):
        storage.put_bytes(key, data)


def _remove_energon(storage: Storage, index: Index) -> None:
    """Remove Energon's metadata (a view, made on demand), which would point into other tars now."""
    for key in storage.list(f"{index.folder}/"):
        if key.startswith(f"{index.folder}/.nv-meta/") or key.endswith(".tar.idx"):
            storage.delete(key)


def _remove_leftovers(storage: Storage, index: Index) -> None:
    """Remove tars of an earlier build that the index does not name, and unfinished ones of killed builds."""
    named = {index.key_of(shard.name) for shard in index.shards}
    for key in storage.list(f"{index.folder}/"):
        if key.endswith(".tar") and key not in named:
            logger.info("Removing %s, which the new index does not name.", key)
            storage.delete(key)
    folder = storage.local_path(index.folder)
    for part in folder.glob(f".*.tar.*{PART_SUFFIX}") if folder else ():
        if time.time() - part.stat().st_mtime > _STALE_S:
            part.unlink(missing_ok=True)
