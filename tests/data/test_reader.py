from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from longvila.data import ShardReader, open_index, open_reader, write_dataset
from longvila.errors import InputError
from longvila.media.jpeg import unpack_frames
from longvila.storage import Storage, open_storage
from tests.data.conftest import make_item, make_items


@pytest.fixture(params=[0, 10**9])
def reader(storage: Storage, request: pytest.FixtureRequest) -> ShardReader:
    write_dataset(storage, "demo", "train", make_items(20), target_bytes=50_000)
    return ShardReader(storage, open_index(storage, "demo"), keep_bytes=request.param)


def test_samples_come_back_equal(reader: ShardReader) -> None:
    items = list(make_items(20))
    assert [reader.sample(i) for i in range(20)] == [item.sample for item in items]
    assert list(reader.samples([3, 1, 19])) == [items[i].sample for i in (3, 1, 19)]
    for i, item in enumerate(items):
        found = reader.with_frames(i)
        assert found.sample == item.sample
        assert (found.frames is None) == (item.frames is None)
        if found.frames is not None and item.frames is not None:
            assert found.frames.data == item.frames.data


def test_frames_come_in_the_order_asked_for(reader: ShardReader) -> None:
    blob = make_item(6, 6).frames
    assert blob is not None
    for wanted in ([0], [5, 0, 3], [2, 2, 2], list(range(6)), np.array([4, 1])):
        expected = unpack_frames(blob.data, blob.offsets, wanted)
        np.testing.assert_array_equal(reader.frames(6, wanted), expected)
    assert reader.frames(6, []).shape == (0, 0, 0, 3)
    assert reader.frames(0, []).shape[0] == 0
    for wanted in ([6], [-1], [0, 99]):
        with pytest.raises(IndexError, match="has 6 frames"):
            reader.frames(6, wanted)


def test_only_the_bytes_of_the_frames_asked_for_are_read(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    write_dataset(storage, "demo", "train", [make_item(1, 200)])
    reader = ShardReader(storage, open_index(storage, "demo"))
    blob = make_item(1, 200).frames
    assert blob is not None
    reader.frames(0, [7])
    overhead = reader.bytes_read - int(blob.offsets[8] - blob.offsets[7])
    assert overhead == 128 + 8 * 201  # the offsets, once
    before = reader.bytes_read
    reader.frames(0, [10, 11, 50])
    assert reader.bytes_read - before == int(
        blob.offsets[12] - blob.offsets[10] + blob.offsets[51] - blob.offsets[50]
    )
    assert reader.bytes_read < len(blob.data) / 5


def test_eight_ranks_together_read_each_frame_once(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    write_dataset(storage, "demo", "train", [make_item(1, 64)])
    readers = [ShardReader(storage, open_index(storage, "demo")) for _ in range(8)]
    parts = [reader.frames(0, range(8 * rank, 8 * rank + 8)) for rank, reader in enumerate(readers)]
    blob = make_item(1, 64).frames
    assert blob is not None
    np.testing.assert_array_equal(np.concatenate(parts), unpack_frames(blob.data, blob.offsets, range(64)))
    assert sum(reader.bytes_read for reader in readers) == len(blob.data) + 8 * (128 + 8 * 65)


def test_threads_share_a_reader(reader: ShardReader) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: reader.frames(i % 20, range(i % 20 % 7)), range(80)))
    assert [len(frames) for frames in found] == [i % 20 % 7 for i in range(80)]


def test_a_data_set_opens_by_its_address(storage: Storage) -> None:
    write_dataset(storage, "demo", "train", make_items(4))
    write_dataset(storage, "demo", "heldout", make_items(2, "heldout"))
    url = f"{storage.url}/shards/demo"
    assert len(open_reader(url)) == 6
    assert open_reader(url, split="heldout").sample(0).key == "a-heldout-0000"
    with pytest.raises(InputError, match="There is no data set 'none'"):
        open_reader(f"{storage.url}/shards/none")


def damage(storage: Storage, offset: int, data: bytes) -> None:
    key = "shards/demo/demo-train-000000.tar"
    whole = bytearray(storage.get_bytes(key))
    whole[offset : offset + len(data)] = data
    storage.put_bytes(key, bytes(whole))


def test_a_damaged_sample_is_named(storage: Storage) -> None:
    write_dataset(storage, "demo", "train", make_items(7))
    index = open_index(storage, "demo")
    reader = ShardReader(storage, index)
    row = index.row(6)
    names = "Sample 'a-train-0006' of shard demo-train-000000.tar .data set 'demo'. cannot be read"
    damage(storage, row.frames_offset, b"\0" * 40)
    with pytest.raises(InputError, match=names):
        reader.frames(6, [0])
    assert len(reader.frames(5, range(5))) == 5  # the others are as good as before
    damage(storage, row.offsets_offset + 128, b"\xff" * 16)
    with pytest.raises(InputError, match="its offsets do not fit"):
        ShardReader(storage, index).frames(6, [1])
    damage(storage, row.json_offset, b"}")
    with pytest.raises(InputError, match=names):
        ShardReader(storage, index, keep_bytes=0).sample(6)
    storage.put_bytes("shards/demo/demo-train-000000.tar", b"short")
    with pytest.raises(InputError, match="of shard demo-train-000000"):
        ShardReader(storage, index).sample(6)


def test_a_small_far_data_set_is_read_once(s3_url: str) -> None:
    storage = open_storage(s3_url)
    ref = write_dataset(storage, "demo", "train", make_items(20), target_bytes=50_000)
    reader = ShardReader(storage, open_index(storage, "demo"))
    for _ in range(2):
        for i in range(20):
            reader.sample(i)
            reader.frames(i, range(i % 7))
    assert not reader.is_far
    assert reader.bytes_read == sum(shard.size_bytes for shard in ref.shards)
    assert ShardReader(storage, open_index(storage, "demo"), keep_bytes=0).is_far


def test_an_index_of_another_build_is_told(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    write_dataset(storage, "demo", "train", make_items(7))
    old = ShardReader(storage, open_index(storage, "demo"))
    write_dataset(storage, "demo", "train", list(make_items(7))[::-1])
    with pytest.raises(InputError, match=r"its record is damaged\. .*build it again"):
        old.sample(2)
    write_dataset(storage, "demo", "train", make_items(1))
    with pytest.raises(InputError, match="demo-train-000000"):
        old.sample(6)
