"""Tables, spreads, order and the JSON file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.harness import Report, Spread, arguments, finish, interleaved, table


def test_spread_is_the_median_and_the_quartiles() -> None:
    assert Spread.of([3.0]) == (3.0, 3.0, 3.0)
    assert Spread.of([5.0, 1.0, 4.0, 2.0, 3.0]) == (3.0, 2.0, 4.0)
    assert Spread(1.23456, 1.0, 2.0).row("time s", digits=2) == {
        "time s": 1.23,
        "time s_q1": 1.0,
        "time s_q3": 2.0,
    }


def test_schemes_run_in_turn_and_in_the_same_order_everywhere() -> None:
    ran: list[str] = []

    def run(name: str) -> int:
        ran.append(name)
        return len(ran)

    found = interleaved({name: (lambda name=name: run(name)) for name in "abc"}, repeats=5)
    first = list(ran)
    interleaved({name: (lambda name=name: run(name)) for name in "abc"}, repeats=5)
    assert all(sorted(first[i : i + 3]) == ["a", "b", "c"] for i in range(0, 15, 3))
    assert ran[15:] == first
    assert [first[number - 1] for number in found["b"]] == ["b"] * 5


def test_table_has_a_column_for_every_key() -> None:
    lines = table([{"a": 1, "b": 0.123456}, {"a": "x", "c": None}]).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["a", "b", "c"]
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["1", "0.1235", ""]
    assert len({len(line) for line in lines}) == 1


def test_report_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("some_bench", rows=[{"a": 1}], summary={"ratio": 0.5}, extra_machine={"ranks": 4})
    report.notes.append("said once")
    finish(report, tmp_path / "new" / "some.json")
    written = json.loads((tmp_path / "new" / "some.json").read_text())
    assert {"name", "date", "machine", "command", "rows", "summary"} <= written.keys()
    assert (written["summary"], written["machine"]["ranks"]) == ({"ratio": 0.5}, 4)
    printed = capsys.readouterr().out
    assert "ratio = 0.5" in printed
    assert "note: said once" in printed
    assert not list(tmp_path.rglob("*.part"))


def test_every_benchmark_has_the_same_two_options() -> None:
    options = arguments("text").parse_args(["--quick", "--json", "a.json"])
    assert (options.quick, options.json) == (True, Path("a.json"))
