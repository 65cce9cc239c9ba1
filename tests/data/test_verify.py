from __future__ import annotations

import pytest

from longvila.data import open_index, verify_dataset, write_dataset
from longvila.errors import InputError
from longvila.storage import Storage
from tests.data.conftest import make_items
from tests.data.test_reader import damage


def test_a_whole_data_set_is_fine(storage: Storage) -> None:
    write_dataset(storage, "demo", "train", make_items(20), target_bytes=50_000)
    report = verify_dataset(storage, "demo")
    assert report.ok
    assert report.problems == ()
    assert (report.num_samples, report.num_frames) == (20, sum(number % 7 for number in range(20)))


def test_one_changed_byte_is_found(storage: Storage) -> None:
    write_dataset(storage, "demo", "train", make_items(7))
    damage(storage, open_index(storage, "demo").row(3).frames_offset + 300, b"\0")
    report = verify_dataset(storage, "demo")
    assert not report.ok
    assert report.problems == (
        "demo-train-000000.tar has another content than its index says (sha256)",
        "sample a-train-0003 of demo-train-000000.tar: its content changed (sha256)",
    )


def test_missing_and_cut_shards_are_found(storage: Storage) -> None:
    write_dataset(storage, "demo", "train", make_items(20), target_bytes=50_000)
    keys = [key for key in storage.list() if key.endswith(".tar")]
    storage.delete(keys[0])
    storage.put_bytes(keys[1], storage.get_bytes(keys[1])[:5000])
    problems = verify_dataset(storage, "demo").problems
    assert "demo-train-000000.tar is missing" in problems
    assert any(
        problem.startswith("demo-train-000001.tar") and "sha256" not in problem for problem in problems
    )


def test_a_missing_data_set_is_told(storage: Storage) -> None:
    with pytest.raises(InputError, match="Build it first"):
        verify_dataset(storage, "demo")
