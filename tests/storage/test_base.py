from __future__ import annotations

import hashlib
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from longvila.errors import InputError
from longvila.storage import Storage, check_key, open_storage


def test_what_is_put_can_be_got(storage: Storage, tmp_path: Path) -> None:
    storage.put_bytes("a/b.bin", b"0123456789")
    assert storage.get_bytes("a/b.bin") == b"0123456789"
    assert storage.size("a/b.bin") == 10
    assert storage.exists("a/b.bin")
    assert not storage.exists("a")
    storage.get_file("a/b.bin", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == b"0123456789"


def test_files_of_many_parts_arrive_whole(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2**20) * 35)
    storage.put_file("big.bin", source)
    storage.get_file("big.bin", tmp_path / "copy")
    digests = {hashlib.sha256(path.read_bytes()).digest() for path in (source, tmp_path / "copy")}
    assert len(digests) == 1
    assert storage.read_range("big.bin", 2**20 - 3, 2**20 + 5) == source.read_bytes()[2**20 - 3 : 2**20 + 5]


def test_overwriting_changes_content_and_fingerprint(storage: Storage) -> None:
    storage.put_bytes("x", b"one")
    before = storage.fingerprint("x")
    storage.put_bytes("x", b"two!")
    assert storage.get_bytes("x") == b"two!"
    assert storage.fingerprint("x") != before


def test_ranges_are_half_open_and_may_be_empty(storage: Storage) -> None:
    storage.put_bytes("x", b"0123456789")
    assert storage.read_range("x", 2, 5) == b"234"
    assert storage.read_range("x", 4, 4) == b""
    assert storage.read_range("x", 0, 10) == b"0123456789"


@pytest.mark.parametrize(("start", "stop"), [(5, 11), (10, 12), (20, 30)])
def test_a_range_beyond_the_end_is_told(storage: Storage, start: int, stop: int) -> None:
    storage.put_bytes("x", b"0123456789")
    with pytest.raises(InputError, match="Build the data set again"):
        storage.read_range("x", start, stop)


def test_listing_is_sorted_and_by_prefix(storage: Storage) -> None:
    assert storage.list() == []
    for key in ("b/2", "b/1", "a/x/y", "b-c/3", "b"):
        if key != "b":
            storage.put_bytes(key, b"")
    assert storage.list() == ["a/x/y", "b-c/3", "b/1", "b/2"]
    assert storage.list("b/") == ["b/1", "b/2"]
    assert storage.list("b") == ["b-c/3", "b/1", "b/2"]
    assert storage.list("none/") == []


def test_deleting_twice_is_no_error(storage: Storage) -> None:
    storage.put_bytes("x", b"1")
    storage.delete("x")
    storage.delete("x")
    assert not storage.exists("x")


def test_what_is_missing_is_named(storage: Storage, tmp_path: Path) -> None:
    for call in (
        storage.get_bytes,
        storage.size,
        storage.fingerprint,
        lambda key: storage.read_range(key, 0, 1),
    ):
        with pytest.raises(InputError, match="Check the workspace"):
            call("shards/none.tar")
    with pytest.raises(InputError, match=r"none\.tar"):
        storage.get_file("shards/none.tar", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with pytest.raises(InputError, match="no such file"):
        storage.put_file("x", tmp_path / "absent")
    assert storage.list() == []


@pytest.mark.parametrize(
    "key", ["../x", "/etc/passwd", "a/../../x", "a//b", "", ".", "a/./b", "a\\b", "a\0b", "a\nb"]
)
def test_keys_cannot_leave_the_storage(storage: Storage, key: str) -> None:
    with pytest.raises(InputError, match="storage key"):
        check_key(key)
    for call in (storage.get_bytes, storage.exists, storage.size, storage.delete, storage.local_path):
        with pytest.raises(InputError, match="storage key"):
            call(key)
    with pytest.raises(InputError, match="storage key"):
        storage.put_bytes(key, b"x")


def test_storage_is_writable(storage: Storage) -> None:
    storage.check_writable()
    assert storage.list() == []


def test_storage_travels_to_other_processes_and_threads(storage: Storage) -> None:
    storage.put_bytes("x", b"1")
    assert pickle.loads(pickle.dumps(storage)).get_bytes("x") == b"1"
    child = os.fork()
    if child == 0:
        os._exit(0 if storage.get_bytes("x") == b"1" else 1)
    assert os.waitpid(child, 0)[1] == 0
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: storage.put_bytes(f"t/{i}", b"%d" % i), range(32)))
        assert list(pool.map(lambda i: storage.get_bytes(f"t/{i}"), range(32))) == [
            b"%d" % i for i in range(32)
        ]


def test_addresses(tmp_path: Path) -> None:
    assert open_storage(f"file://{tmp_path}").url == str(tmp_path)
    assert open_storage("s3://bucket/some/prefix/").url == "s3://bucket/some/prefix"
    assert open_storage("s3://bucket").url == "s3://bucket"
    with pytest.raises(InputError, match="unknown scheme"):
        open_storage("gs://bucket/x")
    with pytest.raises(InputError, match="cannot be a bucket"):
        open_storage("s3://B/x")
    with pytest.raises(InputError, match="storage key"):
        open_storage("s3://bucket/../x")
