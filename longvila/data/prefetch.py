"""Makes what comes next ahead of its consumer: several threads, in order, within a budget of bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Ahead(Generic[ItemT, ResultT]):
    """An iterator over ``make(item)`` for each of ``items``, in their order, made by ``workers`` threads.

    ``cost_bytes(item)`` says beforehand what its result takes. What is being made and what waits take at
    most ``limit_bytes`` together, and are at most ``limit``; a result that is larger than the budget is made
    alone. An error of ``make`` is raised where its result would be consumed. ``close`` ends the threads
    when they are done with what they have in hand.
    """

    def __init__(
        self,
        make: Callable[[ItemT], ResultT],
        items: Iterator[ItemT],
        *,
        workers: int = 1,
        limit: int,
        limit_bytes: int,
        cost_bytes: Callable[[ItemT], int],
    ) -> None:
        self._make, self._items, self._cost = make, items, cost_bytes
        self._limit, self._limit_bytes = limit, limit_bytes
        self._changed = threading.Condition()
        self._next: tuple[ItemT, int] | None = None  # looked at, not begun: there was no room
        self._begun = self._taken = 0  # items
        self._ended = self._stopped = False
        self._costs: dict[int, int] = {}  # of what is being made and what waits
        self._done: dict[int, tuple[ResultT] | BaseException] = {}
        self.most_bytes = 0
        self._threads = [
            threading.Thread(target=self._run, name="prefetch", daemon=True) for _ in range(max(1, workers))
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[ResultT]:
        return self

    def __next__(self) -> ResultT:
        with self._changed:
            while self._taken not in self._done:
                if self._stopped or (self._ended and self._taken == self._begun):
                    raise StopIteration
                self._changed.wait()
            done = self._done.pop(self._taken)
            self._costs.pop(self._taken)
            self._taken += 1
            self._stopped = self._stopped or isinstance(done, BaseException)
            self._changed.notify_all()
        if isinstance(done, BaseException):
            raise done
        return done[0]

    def close(self) -> None:
        """Stop the threads and wait for them."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (begun := self._begin()) is not None:
            number, item = begun
            try:
                done: tuple[ResultT] | BaseException = (self._make(item),)
            except BaseException as error:  # noqa: BLE001 (raised again by the consumer)
                done = error
            with self._changed:
                self._done[number] = done
                self._changed.notify_all()

    def _begin(self) -> tuple[int, ItemT] | None:
        """Wait until there is room for the next item and take it; None when there is none, or no consumer."""
        with self._changed:
            while not (self._stopped or self._ended):
                if self._next is None and not self._look():
                    break
                if self._next is not None and self._has_room(self._next[1]):
                    (item, cost), number = self._next, self._begun
                    self._next = None
                    self._begun += 1
                    self._costs[number] = cost
                    self.most_bytes = max(self.most_bytes, sum(self._costs.values()))
                    return number, item
                self._changed.wait()
            return None

    def _look(self) -> bool:
        """Fetch the next item to be begun; an error in doing so takes its place among the results."""
        try:
            item = next(self._items)
            self._next = item, self._cost(item)
        except StopIteration:
            self._ended = True
        except BaseException as error:  # noqa: BLE001 (raised again by the consumer)
            self._done[self._begun], self._costs[self._begun] = error, 0
            self._begun += 1
            self._ended = True
        self._changed.notify_all()
        return not self._ended

    def _has_room(self, cost: int) -> bool:
        fits = len(self._costs) < self._limit and sum(self._costs.values()) + cost <= self._limit_bytes
        return fits or not self._costs
