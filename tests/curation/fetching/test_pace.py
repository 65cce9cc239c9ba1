from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from longvila.config.sourcing import FetchConfig
from longvila.curation.fetching.pace import Pacer
from longvila.errors import ConfigError


def take(folder: Path | None, count: int, pacer: Pacer | None = None) -> list[float]:
    """Take so many turns and say when they came."""
    pacer = pacer or Pacer(50.0, host_rates={}, folder=folder)
    turns = []
    for _ in range(count):
        wait_s = pacer.turn("x.org", 443)
        turns.append(time.time() + wait_s)
        time.sleep(wait_s)
    return turns


def span_s(each: list[list[float]]) -> float:
    """From the first turn to the last. A late thread makes it longer, never shorter."""
    turns = [turn for one in each for turn in one]
    return max(turns) - min(turns)


def test_threads_share_one_pace() -> None:
    pacer = Pacer(50.0, host_rates={})
    with ThreadPoolExecutor(4) as pool:
        each = list(pool.map(lambda _: take(None, 5, pacer), range(4)))
    assert span_s(each) > 0.9 * 19 / 50.0  # 20 turns, not four times 5


def test_processes_share_one_pace(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        each = pool.starmap(take, [(tmp_path, 6), (tmp_path, 6)])
    assert span_s(each) > 0.9 * 11 / 50.0  # 12 turns, not twice 6


def test_hosts_do_not_wait_for_each_other_and_may_have_their_own_rate() -> None:
    pacer = Pacer(0.1, host_rates={"Fast.org": 1000.0, "x.org:8080": 1000.0})
    assert [pacer.turn(host, 80) for host in ("a.org", "b.org")] == [0.0, 0.0]
    assert pacer.turn("A.org", 80) == pytest.approx(10.0, abs=0.5)
    assert pacer.turn("fast.org", 80) + pacer.turn("fast.org", 80) < 0.01
    assert pacer.turn("x.org", 8080) + pacer.turn("x.org", 8080) < 0.01


def test_a_host_that_asks_for_a_pause_gets_it(tmp_path: Path) -> None:
    Pacer(10.0, host_rates={}, folder=tmp_path).hold("x.org", 80, 7.0)
    assert Pacer(10.0, host_rates={}, folder=tmp_path).turn("x.org", 80) == pytest.approx(7.0, abs=0.2)


def test_a_file_that_was_cut_short_costs_nothing(tmp_path: Path) -> None:
    pacer = Pacer(10.0, host_rates={}, folder=tmp_path)
    pacer.turn("x.org", 80)
    for path in tmp_path.glob("*.json"):
        path.write_text('{"x.org": 17')
    assert pacer.turn("x.org", 80) == 0.0


def test_a_rate_of_nothing_is_refused() -> None:
    from longvila.config import validate

    with pytest.raises(ConfigError, match=r"host_rates\['x.org'\]=0 must be more than 0"):
        validate(FetchConfig, {"host_rates": {"x.org": 0}}, origin="test")
