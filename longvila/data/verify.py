"""Checks a finished data set against its index, byte by byte."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from longvila.data.index import Index, IndexRow, open_index
from longvila.data.parts import FRAMES, JSON, OFFSETS, TIMES, read_npy, sample_hash
from longvila.data.reader import ShardReader
from longvila.errors import InputError
from longvila.media.jpeg import unpack_frames
from longvila.records import Record, Sample, ShardRecord
from longvila.storage import Storage


class VerifyReport(Record):
    """What was checked, and what is wrong: nothing, for a whole data set."""

    name: str
    num_shards: int
    num_samples: int
    num_frames: int
    size_bytes: int
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_dataset(
    storage: Storage, name: str, *, decode: bool = True, folder: str | None = None
) -> VerifyReport:
    """Read every shard once: its hash, each sample's hash and record, and (``decode``) every frame.

    Problems are collected, not raised; only a missing or unreadable index raises ``InputError``.
    """
    index = open_index(storage, name, folder=folder)
    problems = [problem for shard in index.shards for problem in _check_shard(storage, index, shard, decode)]
    named = {shard.name for shard in index.shards}
    problems += [f"sample {row.key} is in {row.shard}, which is not listed" for row in _rows(index, named)]
    ref = index.ref()
    return VerifyReport(
        name=index.name,
        num_shards=len(index.shards),
        num_samples=ref.num_samples,
        num_frames=ref.num_frames,
        size_bytes=sum(shard.size_bytes for shard in index.shards),
        problems=tuple(problems),
    )


def _rows(index: Index, listed: set[str]) -> Iterator[IndexRow]:
    return (row for row in map(index.row, range(len(index))) if row.shard not in listed)


def _check_shard(storage: Storage, index: Index, shard: ShardRecord, decode: bool) -> Iterator[str]:
    key = index.key_of(shard.name)
    if not storage.exists(key):
        yield f"{shard.name} is missing"
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = storage.local_path(key)
        if path is None:
            path = Path(scratch) / shard.name
            storage.get_file(key, path)
        if _file_hash(path) != shard.sha256:
            yield f"{shard.name} has another content than its index says (sha256)"
        numbers = [i for i, name in enumerate(index.columns["shard"]) if name == shard.name]
        if any(index.columns["media"][i] or index.columns["json_file"][i] for i in numbers):
            yield from _check_foreign(ShardReader(storage, index, keep_bytes=0), numbers, decode)
            return
        yield from _check_samples(path, shard, [index.row(i) for i in numbers], decode)


def _check_foreign(reader: ShardReader, numbers: list[int], decode: bool) -> Iterator[str]:
    """The samples of a foreign tar are checked by their places: it may hold others, which were left out."""
    for i in numbers:
        row = reader.index.row(i)
        try:
            if reader.content_hash(i) != row.sha256:
                yield f"sample {row.key} of {row.shard}: its content changed (sha256)"
            elif decode:
                reader.frames(i, range(row.num_frames))
        except InputError as error:
            yield f"sample {row.key} of {row.shard}: {error}"


def _check_samples(path: Path, shard: ShardRecord, rows: list[IndexRow], decode: bool) -> Iterator[str]:
    try:
        samples = list(_names(path))
    except tarfile.TarError as error:
        yield f"{shard.name} is not a whole tar: {error}"
        return
    if samples != [row.key for row in rows]:
        yield f"{shard.name} holds {len(samples)} samples, not the {len(rows)} of its index in their order"
        return
    for row, parts in zip(rows, _read_parts(path), strict=True):
        problem = _check_sample(row, parts, decode)
        if problem:
            yield f"sample {row.key} of {shard.name}: {problem}"


def _check_sample(row: IndexRow, parts: dict[str, bytes], decode: bool) -> str | None:
    if sample_hash(parts) != row.sha256:
        return "its content changed (sha256)"
    try:
        sample = Sample.model_validate_json(parts[JSON])
        if sample.num_frames != row.num_frames:
            return f"{sample.num_frames} frame times, but {row.num_frames} frames in the index"
        if row.num_frames:
            offsets, times = read_npy(parts[OFFSETS]), read_npy(parts[TIMES])
            if not np.array_equal(times, np.array(sample.frame_times_s)):
                return "its times differ from its record's"
            if decode:
                unpack_frames(parts[FRAMES], offsets, range(row.num_frames))
    except (ValidationError, KeyError, ValueError, InputError) as error:
        return str(error)
    return None


def _names(path: Path) -> Iterator[str]:
    last = None
    with tarfile.open(path) as tar:
        for member in tar:
            key = member.name.partition(".")[0]
            if key != last:
                yield key
            last = key


def _read_parts(path: Path) -> Iterator[dict[str, bytes]]:
    last, parts = None, {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            if key != last and parts:
                yield parts
                parts = {}
            file = tar.extractfile(member) or io.BytesIO()
            parts[extension] = file.read()
            last = key
    if parts:
        yield parts


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
