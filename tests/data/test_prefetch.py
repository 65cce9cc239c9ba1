from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from longvila.data.prefetch import Ahead

WORKERS = pytest.mark.parametrize("workers", [1, 3])


def ahead_of(
    items: Iterator[int], make: Callable[[int], int] = lambda item: item, *, workers: int = 1, limit: int = 3,
    limit_bytes: int = 10**9, cost: Callable[[int], int] = lambda item: 1,
) -> Ahead[int, int]:  # fmt: skip
    return Ahead(make, items, workers=workers, limit=limit, limit_bytes=limit_bytes, cost_bytes=cost)


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "prefetch"]


@WORKERS
def test_items_come_in_order_and_end(workers: int) -> None:
    def make(item: int) -> int:
        time.sleep(0.002 * (item % 3))  # later ones are often ready first
        return item * item

    ahead = ahead_of(iter(range(60)), make, workers=workers)
    assert list(ahead) == [item * item for item in range(60)]
    assert list(ahead) == []
    ahead.close()
    assert alive() == []


@WORKERS
def test_no_more_are_made_than_may_wait(workers: int) -> None:
    made: list[int] = []
    ahead = ahead_of(iter(range(50)), lambda item: made.append(item) or item, workers=workers, limit=4)
    for taken in range(1, 11):
        assert next(ahead) == taken - 1
        time.sleep(0.01)
        assert len(made) <= taken + 4
    ahead.close()
    assert len(made) <= 14


@WORKERS
def test_bytes_are_bounded_and_a_large_one_goes_alone(workers: int) -> None:
    costs = [30, 30, 30, 250, 30, 30, 90, 30, 30]
    here: dict[int, int] = {}
    lock = threading.Lock()
    most: list[int] = []

    def make(item: int) -> int:
        with lock:
            here[item] = costs[item]
            most.append(sum(here.values()))
        time.sleep(0.003)
        return item

    ahead = ahead_of(
        iter(range(9)), make, workers=workers, limit=9, limit_bytes=100, cost=lambda item: costs[item]
    )
    for wanted in range(9):
        time.sleep(0.01)
        with lock:  # what is handed out is no longer ahead's
            assert all(item >= wanted for item in here)
        assert next(ahead) == wanted
        with lock:
            here.pop(wanted)
    ahead.close()
    assert sorted(most)[-1] == 250  # alone: never more than the budget otherwise
    assert all(size <= 100 or size == 250 for size in most)
    assert ahead.most_bytes == 250


def test_several_threads_make_at_once() -> None:
    together = threading.Barrier(3, timeout=10)
    ahead = ahead_of(iter(range(6)), lambda item: together.wait() * 0 + item, workers=3, limit=3)
    assert list(ahead) == list(range(6))
    ahead.close()


@WORKERS
def test_an_error_is_raised_where_it_is_consumed(workers: int) -> None:
    def make(item: int) -> int:
        if item == 2:
            raise KeyError("broken")
        return item

    ahead = ahead_of(iter(range(9)), make, workers=workers)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(KeyError, match="broken"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)
    ahead.close()


def test_an_error_of_the_source_is_raised_after_what_came_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("source")

    ahead = ahead_of(items(), workers=2)
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="source"):
        next(ahead)
    ahead.close()


@WORKERS
def test_closing_ends_the_threads(workers: int) -> None:
    ahead = ahead_of(iter(range(1000)), workers=workers, limit=2)
    next(ahead)
    ahead.close()
    assert alive() == []
    assert len(list(ahead)) <= 2  # what was ready
