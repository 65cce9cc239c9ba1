from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from longvila.errors import ItemError, NetworkError
from longvila.records import Record, Rejection, Shot, Source
from longvila.storage import StepResult, Workspace, item_id, run_step, run_whole

ITEMS = [Source(source_id=f"s{i}", url=f"u{i}") for i in range(6)]


def shot(source: Source, index: int = 0) -> Shot:
    return Shot(
        shot_id=f"{source.source_id}-{index}", video_id=source.source_id, index=index, start_s=0, stop_s=1
    )


def run(workspace: Workspace, process: Callable, items: list[Source] = ITEMS, **changed) -> StepResult[Shot]:
    arguments = {"name": "shots", "version": 1, "settings": {"threshold": 3.0}, "result_cls": Shot, **changed}
    return run_step(workspace, items=items, process=process, **arguments)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def forbidden(source: Source) -> Shot:
    raise AssertionError(f"{source} was processed again")


def test_a_finished_step_is_not_run_again(workspace: Workspace) -> None:
    seen: list[tuple[int, int]] = []
    first = run(workspace, shot, progress=lambda done, all_: seen.append((done, all_)))
    assert not first.reused
    assert seen == [(done, 6) for done in range(7)]
    again = run(workspace, forbidden)
    assert again.reused
    assert again.results == first.results == [shot(item) for item in ITEMS]
    assert workspace.storage.exists(first.manifest_key)


def test_a_finished_step_is_known_without_the_ledger(workspace: Workspace) -> None:
    run(workspace, shot)
    workspace.ledger.forget("shots")
    (workspace.root / "ledger.sqlite").unlink()
    assert run(Workspace.open(workspace.root), forbidden).reused


@pytest.mark.parametrize("changed", [{"version": 2}, {"settings": {"threshold": 4.0}}, {"name": "other"}])
def test_whatever_changes_is_run_anew(workspace: Workspace, changed: dict) -> None:
    first = run(workspace, shot)
    count: list[Source] = []
    second = run(workspace, lambda item: count.append(item) or shot(item), **changed)
    assert not second.reused
    assert second.key != first.key
    assert len(count) == 6


def test_a_new_item_costs_one_item(workspace: Workspace) -> None:
    run(workspace, shot, items=ITEMS[:5])
    count: list[str] = []
    result = run(workspace, lambda item: count.append(item.source_id) or shot(item))
    assert count == ["s5"]
    assert [found.video_id for found in result.results] == [item.source_id for item in ITEMS]


def test_a_step_goes_on_where_it_failed(workspace: Workspace) -> None:
    def failing(source: Source) -> Shot:
        if source.source_id == "s3":
            raise NetworkError("gone")
        return shot(source)

    with pytest.raises(NetworkError):
        run(workspace, failing)
    count: list[str] = []
    run(workspace, lambda item: count.append(item.source_id) or shot(item))
    assert count == ["s3", "s4", "s5"]


def test_a_killed_step_loses_and_repeats_nothing(workspace: Workspace) -> None:
    code = (
        "import os, sys, signal\n"
        "from tests.storage.test_steps import ITEMS, run, shot\n"
        "from longvila.storage import Workspace\n"
        "def process(item):\n"
        "    if item.source_id == 's4': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return shot(item)\n"
        "run(Workspace.open(sys.argv[1]), process)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(workspace.root)], check=False).returncode == -9
    count: list[str] = []
    result = run(workspace, lambda item: count.append(item.source_id) or shot(item))
    assert count == ["s4", "s5"]
    assert result.results == [shot(item) for item in ITEMS]


def test_what_enters_leaves_as_result_or_rejection(workspace: Workspace) -> None:
    def process(source: Source) -> Shot | list[Shot] | Rejection:
        match source.source_id:
            case "s0":
                raise ItemError("truncated", "the file ends early")
            case "s1":
                return Rejection(item_id="s1", step="shots", reason="gone", detail="404")
            case "s2":
                return []
            case "s3":
                return [shot(source, 0), shot(source, 1)]
        return shot(source)

    for _ in range(2):
        result = run(workspace, process)
        assert [(r.item_id, r.reason) for r in result.rejections] == [
            ("s0", "truncated"), ("s1", "gone"), ("s2", "empty"),
        ]  # fmt: skip
        assert result.rejections[0].step == "shots"
        assert {r.item_id for r in result.rejections} | {s.video_id for s in result.results} == {
            item.source_id for item in ITEMS
        }
        assert len(result.results) == 4


def test_results_whose_files_are_gone_are_made_again(workspace: Workspace) -> None:
    def process(source: Source) -> Shot:
        count.append(source.source_id)
        workspace.storage.put_bytes(f"videos/{source.source_id}", b"1")
        return shot(source)

    def still_valid(found: Shot) -> bool:
        return workspace.storage.exists(f"videos/{found.video_id}")

    count: list[str] = []
    run(workspace, process, still_valid=still_valid)
    workspace.storage.delete("videos/s2")
    count.clear()
    result = run(workspace, process, still_valid=still_valid)
    assert count == ["s2"]
    assert not result.reused
    assert run(workspace, forbidden, still_valid=still_valid).reused


def test_threads_keep_the_order(workspace: Workspace) -> None:
    gate = threading.Barrier(3, timeout=20)  # passes only when three items are in work at once

    def process(source: Source) -> Shot:
        gate.wait()
        return shot(source)

    assert run(workspace, process, workers=3).results == [shot(item) for item in ITEMS]


def test_a_whole_step_runs_once(workspace: Workspace) -> None:
    calls: list[int] = []

    def compute() -> tuple[list[Source], list[Rejection]]:
        calls.append(1)
        twin = Rejection(item_id="s5", step="dedup", reason="near-duplicate", detail="of s4")
        return ITEMS[:5], [twin]

    def whole(inputs: list[Source]) -> StepResult[Source]:
        return run_whole(
            workspace,
            name="dedup",
            version=1,
            settings=None,
            inputs=inputs,
            compute=compute,
            result_cls=Source,
        )

    first, second = whole(ITEMS), whole(ITEMS)
    assert len(calls) == 1
    assert second.reused
    assert (second.results, second.rejections) == (first.results, first.rejections)
    whole(ITEMS[:5])
    assert len(calls) == 2


def test_the_first_field_is_the_id() -> None:
    assert item_id(ITEMS[0]) == "s0"
    assert item_id(shot(ITEMS[0])) == "s0-0"
    with pytest.raises(StopIteration):
        item_id(Record())


def part_of(source: Source, reason: str, index: int = 1) -> Rejection:
    return Rejection(item_id=f"{source.source_id}-{index}", step="shots", reason=reason, detail="x")


def test_parts_of_an_item_may_be_rejected_beside_its_results(workspace: Workspace) -> None:
    def process(item: Source) -> list[Shot | Rejection]:
        if item.source_id == "s1":
            return [part_of(item, "dark", index) for index in range(3)]
        return [shot(item, 0), part_of(item, "dark"), shot(item, 2)]

    made = run(workspace, process)
    assert len(made.results) == 10
    assert [found.item_id for found in made.rejections][:4] == ["s0-1", "s1-0", "s1-1", "s1-2"]
    assert len(made.rejections) == 5 + 3
    (workspace.root / made.manifest_key).unlink()
    again = run(workspace, forbidden)  # from the ledger
    assert (again.results, again.rejections) == (made.results, made.rejections)


def test_an_item_is_processed_again_for_a_part_that_may_pass(workspace: Workspace) -> None:
    def half(item: Source) -> list[Shot | Rejection]:
        return [shot(item), part_of(item, "unreachable" if item.source_id == "s2" else "dark")]

    run(workspace, half, retried_reasons=("unreachable",))
    seen: list[str] = []

    def whole(item: Source) -> list[Shot | Rejection]:
        seen.append(item.source_id)
        return [shot(item, 0), shot(item, 1)]

    made = run(workspace, whole, retried_reasons=("unreachable",))
    assert seen == ["s2"]
    assert (len(made.results), len(made.rejections)) == (7, 5)


def test_a_ledger_of_an_earlier_version_is_understood(workspace: Workspace) -> None:
    made = run(workspace, shot)
    rejected = Rejection(item_id="s0", step="shots", reason="dark", detail="x")
    with sqlite3.connect(workspace.root / "ledger.sqlite") as ledger:
        old = json.dumps({"rejection": rejected.model_dump()})
        ledger.execute("UPDATE items SET result = ? WHERE result LIKE '%s0-0%'", (old,))
    (workspace.root / made.manifest_key).unlink()
    again = run(workspace, forbidden)
    assert again.rejections == [rejected]
    assert len(again.results) == 5
