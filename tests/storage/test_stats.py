from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from longvila.records import Shot, Source
from longvila.storage import Workspace, read_stats, run_step
from longvila.storage.stats import CpuMeter, Stopwatch


def burn(seconds: float) -> None:
    started = time.thread_time()
    while time.thread_time() - started < seconds:
        pass


def test_a_stopwatch_tells_work_from_waiting() -> None:
    with Stopwatch() as busy:
        burn(0.2)
    with Stopwatch() as idle:
        time.sleep(0.2)
    assert busy.cost.cpu_s >= 0.18
    assert idle.cost.cpu_s < 0.1
    assert idle.cost.wall_s >= 0.2


def test_spans_that_overlap_share_the_seconds_and_none_is_counted_twice() -> None:
    meter = CpuMeter()
    first, second = meter.begin(), meter.begin()
    burn(0.2)
    shared = meter.end(second)
    burn(0.1)
    alone = meter.end(first)
    assert shared == pytest.approx(alone - 0.1, abs=0.06)
    assert shared + alone == pytest.approx(0.3, abs=0.1)


def test_threads_of_a_library_count() -> None:
    with Stopwatch() as watch:
        helper = threading.Thread(target=burn, args=(0.2,))
        helper.start()
        helper.join()
    assert watch.cost.cpu_s >= 0.18


def test_a_killed_run_counts_too(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    items = [Source(source_id=f"s{i}", url="u") for i in range(4)]

    def process(item: Source, *, dies: bool) -> Shot:
        if dies and item.source_id == "s2":
            raise KeyboardInterrupt
        time.sleep(0.05)
        return Shot(shot_id=item.source_id, video_id="v", index=0, start_s=0, stop_s=1)

    def run(*, dies: bool):
        return run_step(
            workspace,
            name="shots",
            version=1,
            settings=None,
            items=items,
            process=lambda item: process(item, dies=dies),
            result_cls=Shot,
        )

    with pytest.raises(KeyboardInterrupt):
        run(dies=True)
    result = run(dies=False)
    stats = read_stats(workspace.storage, result.manifest_key)
    assert stats is not None
    assert (stats.step, stats.num_items, stats.num_processed) == ("shots", 4, 2)
    assert stats.wall_s >= 4 * 0.05
    again = run(dies=False)
    assert again.reused
    assert read_stats(workspace.storage, again.manifest_key) == stats
    assert read_stats(workspace.storage, "manifests/shots/other.parquet") is None
