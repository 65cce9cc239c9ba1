from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from longvila.errors import MachineError
from longvila.storage import Ledger


def test_what_is_recorded_is_known_to_a_new_ledger(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.sqlite"
    ledger = Ledger(path)
    assert ledger.done("shots", "a") is None
    ledger.record("shots", "a", "[1]")
    ledger.record("shots", "a", "[2]")
    ledger.record("clips", "a", "[3]")
    assert Ledger(path).done("shots", "a") == "[2]"
    assert Ledger(path).results("shots", ["a", "b"]) == {"a": "[2]"}
    ledger.forget("shots")
    assert Ledger(path).results("shots", ["a"]) == {}
    assert Ledger(path).results("clips", ["a"]) == {"a": "[3]"}


def test_only_the_items_asked_for_are_read_and_many_can_be(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for number in range(1203):
        ledger.record("s", f"i{number}", str(number))
    wanted = [f"i{number}" for number in range(0, 1300)]
    assert ledger.results("s", wanted) == {f"i{number}": str(number) for number in range(1203)}
    assert ledger.results("s", ["i7"]) == {"i7": "7"}
    assert ledger.results("s", []) == {}
    assert ledger.count("s") == 1203


def test_threads_and_processes_write_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record("s", "parent", "0")
    children = []
    for process in range(3):
        child = os.fork()
        if child == 0:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda i, p=process: ledger.record("s", f"{p}-{i}", "1"), range(40)))
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    assert ledger.count("s") == 1 + 3 * 40


def test_a_damaged_ledger_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"this is no database" * 100)
    ledger = Ledger(path)
    ledger.record("s", "a", "1")
    assert ledger.done("s", "a") == "1"
    assert "damaged" in caplog.text
    assert len(list(tmp_path.glob("ledger.sqlite.damaged-*"))) == 1


def test_a_ledger_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").mkdir()
    with pytest.raises(MachineError, match="it is a cache"):
        Ledger(tmp_path / "ledger.sqlite").done("s", "a")


def test_it_is_plain_sqlite(tmp_path: Path) -> None:
    Ledger(tmp_path / "l").record("s", "a", "1")
    connection = sqlite3.connect(tmp_path / "l")
    assert connection.execute("SELECT step, item, result FROM items").fetchall() == [("s", "a", "1")]
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
