"""Runs an iterator in a thread, a few items ahead of its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class Ahead(Generic[ItemT]):
    """An iterator over ``items`` that are made by a thread, at most ``limit`` of them waiting.

    An error in the thread is raised where it is consumed. ``close`` ends the thread at its next item.
    """

    def __init__(self, items: Iterator[ItemT], limit: int) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[ItemT] | BaseException | None] = queue.Queue(limit)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[ItemT]:
        return self

    def __next__(self) -> ItemT:
        if self._stop.is_set():
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, tuple):
            return item[0]
        self._stop.set()
        if item is None:
            raise StopIteration
        raise item

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put((item,)):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 (raised again by the consumer)
            self._put(error)

    def _put(self, item: tuple[ItemT] | BaseException | None) -> bool:
        """Wait for a place in the queue; False when the consumer is gone."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
