"""A build of many videos, killed at any moment, against one that was left alone.

Everything that belongs to the flow dies at once, as when a machine loses power; nothing may be lost, and no
item that was done may be done again.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from longvila.data import open_index
from longvila.storage import open_storage
from tests.curation.many import make_many
from tests.end_to_end.test_lifecycle import LONGVILA, environment
from tests.faults.test_killed import family
from tests.flows.conftest import DEMO

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]

FILMS = ("01-morning", "03-meadow", "04-bullies", "05-workshop", "07-chase")
KILLS = 5
RECIPE = """name: many
data:
  sources: {sources}
  runner: {{kind: processes, workers: 2}}
  frames: {{fps: 2.0, size: 64, jpeg_quality: 90}}
  questions: {{window_s: [2.0], stride_s: 1.0, max_per_video: 20}}
  dedup: {{near: false}}
  shards: {{target_bytes: 400000}}
"""
Rows = dict[tuple[str, str], float]


@pytest.mark.parametrize("count", [64, pytest.param(2000, marks=pytest.mark.slow)])
def test_killed_anywhere_it_loses_nothing_and_repeats_nothing(count: int, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, count)
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    seconds = finish(alone, recipe)
    chance = random.Random(count)
    done: Rows = {}
    for _ in range(KILLS):
        kill_after(killed, recipe, chance.uniform(0.2, 0.6) * seconds)
        now = ledger(killed)
        assert {key: now[key] for key in done} == done, "an item that was done was done again"
        done = now
    assert done, "it was always killed before it had done anything"
    finish(killed, recipe)
    now = ledger(killed)
    assert {key: now[key] for key in done} == done
    assert shards(killed) == shards(alone)
    assert not list((killed / "shards").rglob("*.part"))
    assert fetched(killed) == fetched(alone) == count


def make_recipe(folder: Path, count: int) -> Path:
    sources = folder / "sources"
    sources.mkdir()
    listed = make_many(sources, [DEMO / "videos" / f"{name}.mp4" for name in FILMS], count=count)
    recipe = folder / "many.yaml"
    recipe.write_text(RECIPE.format(sources=listed))
    return recipe


def command(workspace: Path, recipe: Path) -> list[str]:
    return [
        *(LONGVILA, "flow", "run", "build-dataset", "--json", "--recipe", str(recipe)),
        *("--workspace", str(workspace)),
    ]


def finish(workspace: Path, recipe: Path) -> float:
    started = time.monotonic()
    ended = subprocess.run(
        command(workspace, recipe), env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "database is locked" not in ended.stderr
    steps = {step["step"]: step for step in json.loads(ended.stdout.splitlines()[-1])["result"]["steps"]}
    checked, scanned, kept = (steps[name] for name in ("validate", "scan", "dedup"))
    assert scanned["num_items"] == checked["num_items"] - checked["num_rejections"]
    assert kept["num_results"] == scanned["num_items"] - scanned["num_rejections"] - kept["num_rejections"]
    return time.monotonic() - started


def kill_after(workspace: Path, recipe: Path, seconds: float) -> None:
    workspace.mkdir(exist_ok=True)
    with (workspace / "killed.log").open("wb") as log:
        flow = psutil.Popen(
            command(workspace, recipe), env=environment(), stdout=log, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and flow.poll() is None:
        time.sleep(0.05)
    doomed = family(flow, workspace)
    for process in doomed:
        process.suspend()
    doomed = family(flow, workspace)
    for process in doomed:
        process.kill()
    psutil.wait_procs(doomed, timeout=30)
    flow.wait(30)


def ledger(workspace: Path) -> Rows:
    """When each item of each step was done."""
    path = workspace / "ledger.sqlite"
    if not path.is_file():
        return {}
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT step, item, recorded_at FROM items")
        return {(step, item): recorded_at for step, item, recorded_at in rows}


def shards(workspace: Path) -> dict[str, bytes]:
    folder = workspace / "shards"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.tar")}


def fetched(workspace: Path) -> int:
    """How many videos the shards are made of or were checked out of, by the ledger of the last checks."""
    index = open_index(open_storage(workspace / "shards" / "questions"), "questions", folder="")
    assert len(set(index.columns["key"])) == len(index)
    return len({item for step, item in ledger(workspace) if step.startswith("fetch/")})
