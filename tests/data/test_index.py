from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from longvila.data import open_index, write_dataset
from longvila.data.index import load_index
from longvila.errors import InputError
from longvila.storage import Storage, open_storage
from tests.data.conftest import make_item, make_items


def test_the_index_says_where_everything_lies(storage: Storage) -> None:
    write_dataset(storage, "demo", "train", make_items(20), target_bytes=50_000)
    index = open_index(storage, "demo")
    assert len(index) == 20
    for i, item in enumerate(make_items(20)):
        row = index.row(i)
        assert (row.key, row.kind, row.video_id) == (item.sample.key, item.sample.kind, item.sample.video_id)
        assert row.num_frames == item.sample.num_frames
        assert row.text_chars == sum(len(turn.text) for turn in item.sample.conversations)
        key = index.key_of(row.shard)
        text = storage.read_range(key, row.json_offset, row.json_offset + row.json_size)
        assert text == item.sample.model_dump_json().encode()
        if item.frames is not None:
            data = storage.read_range(key, row.frames_offset, row.frames_offset + row.frames_size)
            assert data == item.frames.data


def test_the_hash_is_that_of_content_and_order(tmp_path: Path) -> None:
    def index_hash(name: str, items: list, target_bytes: int = 10**6) -> str:
        storage = open_storage(tmp_path / name)
        return write_dataset(storage, "demo", "train", items, target_bytes=target_bytes).index_hash

    items = list(make_items(6))
    assert index_hash("1", items) == index_hash("2", items, target_bytes=20_000)
    assert index_hash("3", items[::-1]) != index_hash("1", items)
    assert index_hash("4", [*items[:5], make_item(5, 4)]) != index_hash("1", items)


def test_a_split_can_be_selected(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    write_dataset(storage, "demo", "heldout", make_items(3, "heldout"))
    write_dataset(storage, "demo", "train", make_items(7))
    index = open_index(storage, "demo")
    train, heldout = index.select("train"), index.select("heldout")
    assert (len(index), len(train), len(heldout)) == (10, 7, 3)
    assert [shard.name for shard in heldout.shards] == ["demo-heldout-000000.tar"]
    assert len({index.hash, train.hash, heldout.hash}) == 3
    assert train.row(0).key == "a-train-0000"


def test_it_can_be_queried(tmp_path: Path) -> None:
    write_dataset(open_storage(tmp_path), "demo", "train", make_items(14))
    query = f"SELECT kind, count(*), sum(num_frames) FROM '{tmp_path}/shards/demo/index.parquet' GROUP BY 1"
    assert sorted(duckdb.sql(query).fetchall()) == [("text", 2, 0), ("video", 12, 42)]


def test_a_missing_or_damaged_index_is_told(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    with pytest.raises(InputError, match=r"There is no data set 'demo'.*Build it first"):
        open_index(storage, "demo")
    write_dataset(storage, "demo", "train", make_items(3))
    data = storage.get_bytes("shards/demo/index.parquet")
    for damaged in (data[:-20], b"", data[: len(data) // 2]):
        with pytest.raises(InputError, match="is not the index of a data set"):
            load_index(damaged, folder="", where="x")


def test_rows_that_were_changed_by_hand_are_told(tmp_path: Path) -> None:
    write_dataset(open_storage(tmp_path), "demo", "train", make_items(3))
    path = tmp_path / "shards/demo/index.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 2), path)
    with pytest.raises(InputError, match="is damaged: its rows do not have the hash"):
        open_index(open_storage(tmp_path), "demo")
