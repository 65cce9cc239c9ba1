from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from longvila.data.prefetch import Ahead


def test_items_come_in_order_and_end() -> None:
    ahead = Ahead(iter(range(100)), 3)
    assert list(ahead) == list(range(100))
    assert list(ahead) == []
    ahead.close()


def test_no_more_are_made_than_may_wait() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    ahead = Ahead(items(), 4)
    for taken in range(1, 11):
        assert next(ahead) == taken - 1
        time.sleep(0.02)
        assert len(made) <= taken + 5  # those taken, those that wait, and the one in hand
    ahead.close()
    assert len(made) <= 15


def test_an_error_is_raised_where_it_is_consumed() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    ahead = Ahead(items(), 3)
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="broken"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)
    ahead.close()


def test_closing_ends_the_thread() -> None:
    ahead = Ahead(iter(range(1000)), 2)
    next(ahead)
    ahead.close()
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]
