from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from longvila.curation.language.budget import Budget
from longvila.errors import ConfigError, MachineError
from longvila.records import Usage


def test_what_many_add_at_once_is_all_there_for_the_next_run(tmp_path):
    path = tmp_path / "spent.sqlite"
    usage = Usage(tokens_in=3, tokens_out=2, cost_usd=0.25)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: Budget(path, "m", limit_usd=None).add(usage), range(60)))
    Budget(path, "other", limit_usd=None).add(usage)
    requests, spent = Budget(path, "m", limit_usd=None).spent()
    assert requests == 60
    assert (spent.tokens_in, spent.tokens_out, spent.cost_usd) == (180, 120, pytest.approx(15.0))


def test_nobody_passes_the_limit_together(tmp_path):
    budget = Budget(tmp_path / "spent.sqlite", "m", limit_usd=1.0)
    under_way: list[float] = []
    most: list[float] = []

    def spend(_: int) -> bool:
        try:
            with budget.set_aside(0.3):
                under_way.append(0.3)
                most.append(sum(under_way))
                time.sleep(0.01)
                budget.add(Usage(cost_usd=0.2))  # less than was set aside: room for others
                under_way.pop()
        except ConfigError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        passed = sum(pool.map(spend, range(12)))
    assert passed == 4  # 4 × 0.2, and 0.3 more would be 1.1
    assert budget.spent()[1].cost_usd == pytest.approx(0.8)
    assert max(most) <= 0.9 + 1e-9


def test_a_file_that_is_none_is_told(tmp_path):
    path = tmp_path / "spent.sqlite"
    path.write_bytes(b"not a database, but long enough to be taken for one" * 50)
    with pytest.raises(MachineError, match="counting begins at 0"):
        Budget(path, "m", limit_usd=None).add(Usage())
