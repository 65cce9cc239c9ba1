from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from longvila.errors import Stopped
from tasks.progress import StepProgress
from tasks.stopping import clear_stop, request_stop, watched_runs, watching


@pytest.fixture(autouse=True)
def no_stop() -> Iterator[None]:
    clear_stop()
    yield
    clear_stop()


def test_a_step_ends_after_the_item_in_hand() -> None:
    progress = StepProgress("count")
    progress(1, 3)
    request_stop()
    with pytest.raises(Stopped, match="during count"):
        progress(2, 3)


def test_a_step_that_is_over_is_not_stopped() -> None:
    request_stop()
    StepProgress("count")(3, 3)


def test_progress_is_told_to_the_logger_and_not_too_often(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="longvila.progress"):
        progress = StepProgress("count", unit="stones")
        for done in range(1, 1001):
            progress(done, 1000)
    told = [record.__dict__["progress"] for record in caplog.records]
    assert told[-1] == {"name": "count", "done": 1000, "total": 1000, "unit": "stones", "note": ""}
    assert len(told) < 20
    assert sum(record.levelno == logging.INFO for record in caplog.records) <= 2
    json.dumps(told)


def test_runs_are_watched_for_the_length_of_a_block() -> None:
    with watching("/runs/b"), watching("/runs/a"):
        assert watched_runs() == ["/runs/a", "/runs/b"]
    assert watched_runs() == []
