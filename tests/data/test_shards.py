from __future__ import annotations

import io
import json
import os
import signal
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset

from longvila.data import SampleWithFrames, open_index, shards, verify_dataset, write_dataset
from longvila.data.parts import TarWriter, parts_of
from longvila.errors import InputError
from longvila.media.jpeg import unpack_frames
from longvila.storage import Storage, open_storage
from tests.data.conftest import files_of, killed, make_item, make_items


def contents(storage: Storage) -> dict[str, bytes]:
    return {key: storage.get_bytes(key) for key in storage.list()}


def test_a_data_set_has_these_files(storage: Storage) -> None:
    ref = write_dataset(storage, "demo", "train", make_items(30), target_bytes=60_000)
    write_dataset(storage, "demo", "heldout", make_items(5, "heldout"))
    tars = [f"shards/demo/demo-train-{number:06d}.tar" for number in range(len(ref.shards))]
    assert len(tars) > 2
    assert storage.list() == sorted([
        "shards/demo/demo-heldout-000000.tar", *tars, "shards/demo/index.parquet",
        "shards/demo/wids-meta-heldout.json", "shards/demo/wids-meta.json",
    ])  # fmt: skip
    assert ref.num_samples == 30
    assert ref.num_frames == sum(number % 7 for number in range(30))
    assert all(storage.size(key) <= 80_000 for key in tars)
    assert verify_dataset(storage, "demo").ok


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    ref = write_dataset(open_storage(tmp_path), "demo", "train", make_items(20), target_bytes=50_000)
    urls = [str(tmp_path / "shards/demo" / shard.name) for shard in ref.shards]
    read = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    items = list(make_items(20))
    assert [sample["__key__"] for sample in read] == [item.sample.key for item in items]
    for sample, item in zip(read, items, strict=True):
        assert json.loads(sample["json"])["conversations"][1]["text"] == item.sample.conversations[1].text
        if item.frames is not None:
            offsets = np.load(io.BytesIO(sample["offsets.npy"]))
            times = np.load(io.BytesIO(sample["times.npy"]))
            assert times.tolist() == list(item.sample.frame_times_s)
            assert unpack_frames(sample["frames.bin"], offsets, [0]).shape == (1, 16, 16, 3)


def test_wids_meta_lists_the_training_shards_only(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    write_dataset(storage, "demo", "train", make_items(10))
    write_dataset(storage, "demo", "heldout", make_items(3, "heldout"))
    meta = json.loads(storage.get_bytes("shards/demo/wids-meta.json"))
    assert meta["wids_version"] == 1
    (shard,) = meta["shardlist"]
    assert shard == {
        "url": "demo-train-000000.tar", "nsamples": 10,
        "filesize": storage.size("shards/demo/demo-train-000000.tar"),
    }  # fmt: skip
    heldout = json.loads(storage.get_bytes("shards/demo/wids-meta-heldout.json"))
    assert [one["url"] for one in heldout["shardlist"]] == ["demo-heldout-000000.tar"]


def test_a_rebuild_is_byte_identical(tmp_path: Path) -> None:
    first, second = open_storage(tmp_path / "1"), open_storage(tmp_path / "2")
    for storage, splits in ((first, ("train", "heldout")), (second, ("heldout", "train"))):
        for split in splits:
            write_dataset(storage, "demo", split, make_items(20, split), target_bytes=50_000)
    assert contents(first) == contents(second)


def test_the_same_content_is_not_written_again(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    ref = write_dataset(storage, "demo", "train", make_items(20), target_bytes=50_000)
    before = files_of(tmp_path / "shards/demo")
    assert write_dataset(storage, "demo", "train", make_items(20), target_bytes=50_000) == ref
    assert files_of(tmp_path / "shards/demo") == before


def test_only_changed_shards_are_written(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    write_dataset(storage, "demo", "train", make_items(20), target_bytes=50_000)
    before = files_of(tmp_path / "shards/demo")
    write_dataset(storage, "demo", "train", make_items(22), target_bytes=50_000)
    after = files_of(tmp_path / "shards/demo")
    kept = [name for name in before if name.endswith(".tar") and before[name] == after[name]]
    assert len(kept) == sum(name.endswith(".tar") for name in before) - 1
    assert len(open_index(storage, "demo")) == 22


def test_a_smaller_build_leaves_no_old_shards(storage: Storage) -> None:
    write_dataset(storage, "demo", "train", make_items(20), target_bytes=50_000)
    write_dataset(storage, "demo", "heldout", make_items(3, "heldout"))
    write_dataset(storage, "demo", "train", make_items(2))
    tars = [key for key in storage.list() if key.endswith(".tar")]
    assert tars == ["shards/demo/demo-heldout-000000.tar", "shards/demo/demo-train-000000.tar"]
    assert verify_dataset(storage, "demo").ok


def build(folder: Path, items: Iterable[SampleWithFrames]) -> None:
    write_dataset(open_storage(folder), "demo", "train", items, target_bytes=50_000)


def test_a_killed_build_is_finished_by_the_next(tmp_path: Path) -> None:
    def items() -> Iterator[SampleWithFrames]:
        for number, item in enumerate(make_items(20)):
            if number == 12:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item

    assert killed(lambda: build(tmp_path, items()))
    storage = open_storage(tmp_path)
    assert [key for key in storage.list() if key.endswith(".tar")]
    with pytest.raises(InputError, match="Build it first"):
        open_index(storage, "demo")
    write_dataset(storage, "demo", "train", make_items(20), target_bytes=50_000)
    whole = open_storage(tmp_path / "whole")
    write_dataset(whole, "demo", "train", make_items(20), target_bytes=50_000)
    keys = whole.list()
    assert [key for key in storage.list() if not key.startswith("whole/")] == keys
    assert all(storage.get_bytes(key) == whole.get_bytes(key) for key in keys)


@pytest.mark.parametrize("place", ["in a tar", "before the index", "before wids-meta"])
def test_killed_anywhere_a_rebuild_has_the_same_bytes(tmp_path: Path, place: str) -> None:
    def work() -> None:
        def stop(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        if place == "in a tar":
            written = 0
            whole = TarWriter._write

            def write(self: TarWriter, data: bytes) -> None:
                nonlocal written
                written += 1
                stop() if written == 150 else whole(self, data)

            TarWriter._write = write  # type: ignore[method-assign]  # in the child process only
        elif place == "before the index":
            shards._put_if_changed = lambda storage, key, data: stop() if "index" in key else None
        else:
            shards._write_wids = stop
        build(tmp_path / "killed", make_items(20))

    assert killed(work)
    storage, whole = open_storage(tmp_path / "killed"), open_storage(tmp_path / "whole")
    assert "shards/demo/index.parquet" not in storage.list()
    build(tmp_path / "killed", make_items(20))
    build(tmp_path / "whole", make_items(20))
    assert contents(storage) == contents(whole)
    assert verify_dataset(storage, "demo").ok


def test_two_writers_of_the_same_data_set_leave_it_whole(tmp_path: Path) -> None:
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            for _ in range(3):
                build(tmp_path / "shared", make_items(20))
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    build(tmp_path / "alone", make_items(20))
    assert contents(open_storage(tmp_path / "shared")) == contents(open_storage(tmp_path / "alone"))


def test_webdataset_decodes_the_parts_itself(tmp_path: Path) -> None:
    build(tmp_path, make_items(20))
    urls = sorted(str(path) for path in (tmp_path / "shards/demo").glob("*.tar"))
    for sample in webdataset.WebDataset(urls, shardshuffle=False).decode():
        count = len(sample["json"]["frame_times_s"])
        if count:
            assert sample["times.npy"].tolist() == sample["json"]["frame_times_s"]
            assert (sample["offsets.npy"].shape, sample["offsets.npy"][-1]) == (
                (count + 1,),
                len(sample["frames.bin"]),
            )


def test_wids_reads_by_number(tmp_path: Path) -> None:
    wids = pytest.importorskip("wids")
    build(tmp_path, make_items(20))
    listed = wids.ShardListDataset(
        str(tmp_path / "shards/demo/wids-meta.json"), cache_dir=str(tmp_path / "cache"), transformations=[]
    )
    assert len(listed) == 20
    assert [listed[i]["__key__"].rpartition("/")[2] for i in (7, 19)] == ["a-train-0007", "a-train-0019"]


def test_a_damaged_index_is_replaced(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    ref = write_dataset(storage, "demo", "train", make_items(5))
    storage.put_bytes("shards/demo/index.parquet", b"no parquet")
    assert write_dataset(storage, "demo", "train", make_items(5)) == ref
    assert verify_dataset(storage, "demo").ok


def test_wrong_input_is_told(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    with pytest.raises(InputError, match="comes twice"):
        write_dataset(storage, "demo", "train", [make_item(1, 0), make_item(1, 0)])
    with pytest.raises(InputError, match="Give each split its own"):
        write_dataset(storage, "demo", "train", [make_item(1, 0, "heldout")])
    with pytest.raises(InputError, match="no sample"):
        write_dataset(storage, "demo", "train", [])
    for name in ("../x", "a.b", "", "a/b"):
        with pytest.raises(InputError, match="cannot name a data set"):
            write_dataset(storage, name, "train", make_items(1))
    assert storage.list() == []


def test_a_key_is_unique_over_both_splits(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    write_dataset(storage, "demo", "train", make_items(3))
    twin = make_item(1, 0)
    twin = SampleWithFrames(twin.sample.model_copy(update={"split": "heldout"}))
    with pytest.raises(InputError, match="comes twice"):
        write_dataset(storage, "demo", "heldout", [twin])


def test_times_and_frames_must_agree() -> None:
    item = make_item(3, 3)
    with pytest.raises(ValueError, match="3 frame times, but 0 frames"):
        parts_of(SampleWithFrames(item.sample))


def test_tars_are_plain(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    long_name = "k" * 150 + ".json"
    with path.open("wb") as file:
        writer = TarWriter(file)
        places = [writer.add("a.json", b"hello"), writer.add(long_name, b"x" * 1000)]
        writer.close()
    assert path.stat().st_size == writer.size_bytes
    data = path.read_bytes()
    assert [data[p.offset : p.offset + p.size] for p in places] == [b"hello", b"x" * 1000]
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == ["a.json", long_name]
        assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in members} == {
            (0, 0, 0, "", 0o444)
        }
