"""Foreign WebDataset tars as a data set of ours, where they lie: an index and the records are written beside.

A sample is a video (``KEY.mp4`` …) or a picture (``KEY.jpg``, ``.png``, ``.webp``) with ``KEY.json``
(conversations, messages or a caption) or ``KEY.txt``; or text alone. The media stay in the tars, and are
decoded when they are trained on: good for short videos. Long ones are better written anew as shards of ours,
whose frames each rank reads by itself: ``write_dataset`` takes ``reader.with_frames(i)``.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from longvila.data.foreign_media import check_picture, frame_times
from longvila.data.foreign_records import turns_of_caption, turns_of_json
from longvila.data.foreign_tars import ForeignSample, samples_of
from longvila.data.index import INDEX_FILE, IndexRow, dump_index, load_index, make_index
from longvila.data.parts import Place, foreign_digest
from longvila.errors import InputError, ItemError
from longvila.records import Record, Sample, SampleKind, ShardRecord, Split, Turn, content_id
from longvila.storage import Storage

logger = logging.getLogger(__name__)

VERSION = 1
MAX_TEXT_BYTES = 16 * 2**20
MAX_MEDIA_BYTES = 4 * 2**30
_CHUNK_BYTES = 8 * 2**20
_EXAMPLES = 5


class ForeignReport(Record):
    """What an index was made of, and what was left out and why."""

    name: str
    index_hash: str
    num_shards: int
    num_samples: int
    num_frames: int
    left_out: dict[str, int]
    examples: tuple[str, ...] = ()

    @property
    def last_word(self) -> str:
        """For the terminal."""
        gone = "".join(f", {count} left out ({reason})" for reason, count in self.left_out.items())
        return f"{self.name}: {self.num_samples} samples in {self.num_shards} tars{gone}"


class _Indexed(Record):
    """What is known of one tar: kept beside it, so that a killed run goes on after it."""

    shard: ShardRecord
    rows: tuple[tuple[Any, ...], ...]
    left_out: dict[str, int]
    examples: tuple[str, ...]


def index_foreign(
    storage: Storage,
    name: str,
    *,
    fps: float = 2.0,
    max_frames: int = 256,
    split: Split = "train",
    on_progress: Callable[[int, int], None] | None = None,
) -> ForeignReport:
    """Write ``index.parquet`` for all ``*.tar`` of a folder, and ``NAME.tar.records.jsonl`` for each.

    ``open_reader`` then opens the folder, and a stage's mixture names it by its address. Frames of videos are
    taken at ``fps``, at most ``max_frames``. What was indexed before is not read again while the tar stays
    the same. Samples that cannot be used are left out and counted. Raises ``InputError`` for a tar that is
    damaged or has names that lead out of it, links, or a sample twice; and when there is no tar or no sample.
    """
    tars = [key for key in storage.list() if key.endswith(".tar")]
    if not tars:
        raise InputError(f"There is no *.tar in {storage.url}. Give the folder of the tars.")
    _refuse_our_own(storage)
    settings = (VERSION, fps, max_frames, split)
    indexed = []
    for number, tar in enumerate(tars):
        if on_progress is not None:
            on_progress(number, len(tars))
        indexed.append(_index_once(storage, tar, settings, fps=fps, max_frames=max_frames, split=split))
    if on_progress is not None:
        on_progress(len(tars), len(tars))
    left_out: Counter[str] = Counter()
    for one in indexed:
        left_out.update(one.left_out)
    rows = [IndexRow._make(row) for one in indexed for row in one.rows]
    examples = tuple(example for one in indexed for example in one.examples)[:_EXAMPLES]
    if not rows:
        raise InputError(
            f"No sample in {storage.url} can be used: {dict(left_out)}. The first: {examples[:1]}"
        )
    index = make_index(name, "", rows, tuple(one.shard for one in indexed if one.rows))
    storage.put_bytes(INDEX_FILE, dump_index(index))
    return ForeignReport(
        name=name, index_hash=index.hash, num_shards=len(index.shards), num_samples=len(index),
        num_frames=int(index.num_frames.sum()), left_out=dict(sorted(left_out.items())), examples=examples,
    )  # fmt: skip


def _refuse_our_own(storage: Storage) -> None:
    """Never write over the index of shards that we wrote: it says more than could be found out again."""
    if not storage.exists(INDEX_FILE):
        return
    there = load_index(storage.get_bytes(INDEX_FILE), folder="", where=f"{storage.url}/{INDEX_FILE}")
    if not all(there.columns["json_file"]):
        raise InputError(f"{storage.url} is a data set of ours already ({there.name!r}). Name it as it is.")


def _index_once(
    storage: Storage, tar: str, settings: tuple[object, ...], *, fps: float, max_frames: int, split: Split
) -> _Indexed:
    """Index one tar, or take what is known of it."""
    key = f".index/{tar}-{content_id(storage.fingerprint(tar), settings)}.json"
    records = f"{tar}.records.jsonl"
    if storage.exists(key) and storage.exists(records):
        try:
            return _Indexed.model_validate_json(storage.get_bytes(key))
        except ValidationError:
            logger.info("%s is of another version; %s is indexed anew.", key, tar)
    with tempfile.TemporaryDirectory() as scratch:
        maker = _Tar(storage, tar, Path(scratch), fps=fps, max_frames=max_frames, split=split)
        indexed = maker.index()
        storage.put_bytes(records, b"".join(maker.records))
    storage.put_bytes(key, indexed.model_dump_json().encode())
    return indexed


class _Tar:
    """One tar on its way into the index."""

    def __init__(
        self, storage: Storage, tar: str, scratch: Path, *, fps: float, max_frames: int, split: Split
    ) -> None:
        self._storage, self._tar, self._scratch = storage, tar, scratch
        self._fps, self._max_frames = fps, max_frames
        self._split: Split = split
        self._at = 0
        self.records: list[bytes] = []

    def index(self) -> _Indexed:
        rows: list[IndexRow] = []
        left_out: Counter[str] = Counter()
        examples: list[str] = []
        for found in samples_of(self._storage, self._tar):
            try:
                rows.append(self._row(found))
            except ItemError as error:
                left_out[error.reason] += 1
                examples.append(f"{self._tar}: sample {found.key!r}: {error.detail}")
        shard = ShardRecord(
            name=self._tar,
            size_bytes=self._storage.size(self._tar),
            sha256=self._hash(Place(0, self._storage.size(self._tar))),
            num_samples=len(rows),
            num_frames=sum(row.num_frames for row in rows),
            first_key=rows[0].key if rows else "",
            last_key=rows[-1].key if rows else "",
        )
        return _Indexed(
            shard=shard, rows=tuple(rows), left_out=left_out, examples=tuple(examples[:_EXAMPLES])
        )

    def _row(self, found: ForeignSample) -> IndexRow:
        media, kind, times_s = self._media(found)
        turns = self._turns(found)
        sample = Sample(
            key=_our_key(self._tar, found.key),
            kind=kind,
            split=self._split,
            conversations=turns,
            frame_times_s=times_s,
            provenance={"made_by": f"foreign-{VERSION}", "tar": self._tar, "key": found.key},
        )
        record = sample.model_dump_json().encode() + b"\n"
        place = found.media[1] if found.media else Place(0, 0)
        digest = foreign_digest(record, media, place.size)
        row = IndexRow(
            key=sample.key, split=self._split, kind=kind, video_id="", shard=self._tar,
            sha256=self._hash(place, digest), offset=found.offset, size=found.size,
            json_offset=self._at, json_size=len(record),
            frames_offset=place.offset, frames_size=place.size, offsets_offset=0, offsets_size=0,
            num_frames=sample.num_frames, text_chars=sum(len(turn.text) for turn in turns),
            media=media, json_file=f"{self._tar}.records.jsonl",
        )  # fmt: skip
        self.records.append(record)
        self._at += len(record)
        return row

    def _media(self, found: ForeignSample) -> tuple[str, SampleKind, tuple[float, ...]]:
        if found.media is None:
            return "", "text", ()
        form, place = found.media
        if not 0 < place.size <= MAX_MEDIA_BYTES:
            raise ItemError("too-large" if place.size else "empty", f"its {form} has {place.size} bytes")
        if form == "image":
            check_picture(b"".join(self._chunks(place)))
            return form, "image", (0.0,)
        path = self._scratch / "media"
        with path.open("wb") as file:
            file.writelines(self._chunks(place))
        return form, "video", frame_times(path, fps=self._fps, max_frames=self._max_frames)

    def _turns(self, found: ForeignSample) -> tuple[Turn, ...]:
        if found.text is None:
            raise ItemError("no-text", "it has neither a .json nor a .txt")
        form, place = found.text
        if place.size > MAX_TEXT_BYTES:
            raise ItemError("too-large", f"its .{form} has {place.size} bytes, more than {MAX_TEXT_BYTES}")
        data = b"".join(self._chunks(place))
        if form == "json":
            return turns_of_json(data, has_media=found.media is not None)
        try:
            return turns_of_caption(data.decode(), has_media=found.media is not None)
        except UnicodeDecodeError as error:
            raise ItemError("not-text", f"its .txt is not UTF-8 ({error})") from error

    def _hash(self, place: Place, digest: Any = None) -> str:
        digest = hashlib.sha256() if digest is None else digest
        for chunk in self._chunks(place):
            digest.update(chunk)
        return digest.hexdigest()

    def _chunks(self, place: Place) -> Iterator[bytes]:
        for start in range(place.offset, place.offset + place.size, _CHUNK_BYTES):
            stop = min(start + _CHUNK_BYTES, place.offset + place.size)
            yield self._storage.read_range(self._tar, start, stop)


def _our_key(tar: str, key: str) -> str:
    """Return a key of ours: unique over tars, without dots, slashes or what else a name must not have."""
    wanted = f"{tar.removesuffix('.tar')}-{key}"
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in wanted)
    same = wanted.replace("-", "_") == plain and len(wanted) <= 100
    return wanted if same else f"{plain[:100]}-{content_id(wanted, length=12)}"
