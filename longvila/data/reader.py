"""Reads samples and frames by place: only the bytes that are asked for, from a folder or from S3."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from pydantic import ValidationError

from longvila.data.index import Index, IndexRow, open_index
from longvila.data.parts import Place, SampleWithFrames, foreign_digest, read_npy
from longvila.errors import InputError, ItemError
from longvila.media.jpeg import FrameBlob, decode_frames, pack_frames
from longvila.records import Sample, Split
from longvila.storage import Storage, open_storage

KEEP_BYTES = 256 * 2**20
FOREIGN_JPEG_QUALITY = 90
FAR_THREADS = 8
_FAR_GAP_BYTES = 64 * 1024
_CACHED_OFFSETS = 1024


class BrokenSample(InputError):
    """The bytes of one sample cannot be used, whatever is read them with; the message names shard and key."""


class ShardReader:
    """Random access to the samples of an index. Safe to use from many threads.

    From S3, a data set of at most ``keep_bytes`` is read shard by shard and kept in memory. Of a larger one
    the requests run side by side, and frames whose bytes lie close together come with one request. A sample
    that is damaged raises ``BrokenSample``, which names its shard and key. ``bytes_read`` counts what was
    asked of the storage. Videos and pictures of foreign tars are decoded when they are asked for, to squares
    of ``frame_size`` pixels if it is given.
    """

    def __init__(
        self,
        storage: Storage,
        index: Index,
        *,
        keep_bytes: int = KEEP_BYTES,
        frame_size: int | None = None,
    ) -> None:
        self.storage = storage
        self.index = index
        self._frame_size = frame_size
        self.bytes_read = 0
        is_remote = storage.local_path("probe") is None
        self._sizes = {shard.name: shard.size_bytes for shard in index.shards}
        self._keeps = is_remote and sum(self._sizes.values()) <= keep_bytes
        self._kept: dict[str, bytes] = {}
        self.is_far = is_remote and not self._keeps
        self._offsets: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self._keeping = threading.Lock()

    def __len__(self) -> int:
        return len(self.index)

    def sample(self, i: int) -> Sample:
        """Return the record of sample ``i``."""
        row = self.index.row(i)
        with self._naming(row):
            sample = Sample.model_validate_json(self._read(row, row.json_place, row.json_file))
        if sample.key != row.key:
            raise BrokenSample(
                f"Shard {row.shard} has {sample.key!r} where its index has {row.key!r}: these are of two "
                f"builds. Build data set {self.index.name!r} again."
            )
        return sample

    def samples(self, indices: Sequence[int] | np.ndarray) -> Iterator[Sample]:
        """Yield the records of many samples in order; from far away several at once."""
        if not self.is_far:
            yield from map(self.sample, (int(i) for i in indices))
            return
        with ThreadPoolExecutor(FAR_THREADS) as pool:
            yield from pool.map(self.sample, (int(i) for i in indices))

    def frames(
        self, i: int, frame_indices: Sequence[int] | np.ndarray, *, out_nHW3: np.ndarray | None = None
    ) -> np.ndarray:
        """Decode frames of sample ``i`` to uint8 ``[n, H, W, 3]``; none asked for gives ``[0, 0, 0, 3]``.

        They are decoded into ``out_nHW3`` if it is given; ``InputError`` when they are of another size.
        """
        wanted = np.asarray(frame_indices, dtype=np.int64)
        row = self.index.row(i)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= row.num_frames):
            raise IndexError(f"sample {row.key} has {row.num_frames} frames; asked for {wanted.tolist()}")
        with self._naming(row):
            if not row.media:
                return decode_frames(self._jpegs(i, row, wanted), out_nHW3=out_nHW3)
            decoded = self._decode_media(i, row, wanted)
        if out_nHW3 is None:
            return decoded
        out_nHW3[...] = decoded
        return out_nHW3

    def blob(self, i: int) -> FrameBlob | None:
        """Return all JPEGs of sample ``i`` as they lie there; None for a sample without frames."""
        row = self.index.row(i)
        if row.media:
            return pack_frames(self.frames(i, range(row.num_frames)), quality=FOREIGN_JPEG_QUALITY)
        if not row.offsets_size:
            return None
        with self._naming(row):
            return FrameBlob(self._read(row, row.frames_place), self._offsets_of(i, row))

    def with_frames(self, i: int) -> SampleWithFrames:
        """Return sample ``i`` as it was written."""
        return SampleWithFrames(self.sample(i), self.blob(i))

    def content_hash(self, i: int) -> str:
        """Return what the index should have as ``sha256`` of a sample of a foreign tar."""
        row = self.index.row(i)
        with self._naming(row):
            record = self._read(row, row.json_place, row.json_file)
            digest = foreign_digest(record, row.media, row.frames_size)
            digest.update(self._read(row, row.frames_place))
        return digest.hexdigest()

    def _decode_media(self, i: int, row: IndexRow, wanted: np.ndarray) -> np.ndarray:
        from longvila.data.foreign_media import decode_picture, decode_video

        if not len(wanted):
            return decode_frames([])
        data = self._read(row, row.frames_place)
        if row.media == "image":
            return np.repeat(decode_picture(data, size=self._frame_size)[None], len(wanted), axis=0)
        times_s = np.asarray(self.sample(i).frame_times_s)[wanted]
        return decode_video(data, times_s, size=self._frame_size)

    def _jpegs(self, i: int, row: IndexRow, wanted: np.ndarray) -> list[memoryview]:
        """The bytes of each wanted frame, in the order asked for."""
        if not len(wanted):
            return []
        offsets = self._offsets_of(i, row)
        runs = _runs(offsets, np.unique(wanted), _FAR_GAP_BYTES if self.is_far else 0)
        places = [Place(row.frames_offset + start, stop - start) for start, stop, _ in runs]
        pieces = self._read_all(row, places)
        jpegs: dict[int, memoryview] = {}
        for (start, _, frames), piece in zip(runs, pieces, strict=True):
            view = memoryview(piece)
            for frame in frames:
                jpegs[frame] = view[int(offsets[frame]) - start : int(offsets[frame + 1]) - start]
        return [jpegs[int(frame)] for frame in wanted]

    def _offsets_of(self, i: int, row: IndexRow) -> np.ndarray:
        """Where each JPEG of a sample begins; the arrays of the latest samples are kept."""
        with self._lock:
            if i in self._offsets:
                self._offsets.move_to_end(i)
                return self._offsets[i]
        offsets = read_npy(self._read(row, row.offsets_place))
        ends = (0, row.frames_size)
        fits = offsets.shape == (row.num_frames + 1,) and (int(offsets[0]), int(offsets[-1])) == ends
        if not fits or (np.diff(offsets) < 0).any():
            raise ValueError("its offsets do not fit its frames.")
        with self._lock:
            self._offsets[i] = offsets
            while len(self._offsets) > _CACHED_OFFSETS:
                self._offsets.popitem(last=False)
        return offsets

    def _read_all(self, row: IndexRow, places: list[Place]) -> list[bytes]:
        if not self.is_far or len(places) == 1:
            return [self._read(row, place) for place in places]
        with ThreadPoolExecutor(min(FAR_THREADS, len(places))) as pool:
            return list(pool.map(lambda place: self._read(row, place), places))

    def _read(self, row: IndexRow, place: Place, file: str = "") -> bytes:
        """Read from the sample's shard, or from another file of the data set."""
        start, stop = place.offset, place.offset + place.size
        if self._keeps:
            return self._shard(file or row.shard)[start:stop]
        data = self.storage.read_range(self.index.key_of(file or row.shard), start, stop)
        with self._lock:
            self.bytes_read += len(data)
        return data

    def _shard(self, name: str) -> bytes:
        """The whole shard, read once."""
        with self._keeping:
            if name not in self._kept:
                data = self.storage.get_bytes(self.index.key_of(name))
                if len(data) != self._sizes.get(name, len(data)):
                    raise InputError(f"the shard has {len(data)} bytes, not {self._sizes[name]}.")
                self._kept[name] = data
                self.bytes_read += len(data)
            return self._kept[name]

    @contextmanager
    def _naming(self, row: IndexRow) -> Iterator[None]:
        """Say of which shard and sample the bytes are that cannot be used."""
        try:
            yield
        except (InputError, ItemError, ValueError) as error:
            why = "its record is damaged." if isinstance(error, ValidationError) else error
            raise BrokenSample(
                f"Sample {row.key!r} of shard {row.shard} (data set {self.index.name!r}) cannot be read: "
                f"{why} Check the data set with longvila.data.verify_dataset and build it again."
            ) from error


def open_reader(url: str, *, split: Split | None = None, frame_size: int | None = None) -> ShardReader:
    """Open the data set whose folder is at ``url`` (``…/shards/NAME``), all of it or one split.

    ``frame_size`` is what videos and pictures of foreign tars are scaled to.
    """
    storage = open_storage(url)
    index = open_index(storage, url.rstrip("/").rpartition("/")[2], folder="")
    return ShardReader(storage, index if split is None else index.select(split), frame_size=frame_size)


def _runs(offsets: np.ndarray, frames: np.ndarray, max_gap: int) -> list[tuple[int, int, list[int]]]:
    """Join ascending frames whose bytes lie at most ``max_gap`` apart: (start, stop, frames) of each read."""
    runs: list[tuple[int, int, list[int]]] = []
    for frame in frames.tolist():
        start, stop = int(offsets[frame]), int(offsets[frame + 1])
        if runs and start - runs[-1][1] <= max_gap:
            runs[-1] = (runs[-1][0], stop, [*runs[-1][2], frame])
        else:
            runs.append((start, stop, [frame]))
    return runs
