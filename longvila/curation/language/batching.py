"""Requests of many threads, run together: whoever's turn it is takes those that wait along."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from longvila.errors import ItemError

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")


@dataclass
class _Waiting(Generic[RequestT, ResultT]):
    request: RequestT
    kind: Hashable
    result: Future[ResultT] = field(default_factory=Future)


class Batcher(Generic[RequestT, ResultT]):
    """Calls ``run`` with up to ``size`` requests of one ``kind``, one call at a time. It has no thread.

    ``run`` gives a result or an ``ItemError`` for each request; what it raises is raised to all of them.
    """

    def __init__(
        self,
        run: Callable[[list[RequestT]], Sequence[ResultT | ItemError]],
        *,
        kind: Callable[[RequestT], Hashable],
        size: int,
    ) -> None:
        self._run = run
        self._kind = kind
        self._size = size
        self._queue: list[_Waiting[RequestT, ResultT]] = []
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def submit(self, request: RequestT) -> ResultT:
        """Return the result for one request, or raise what its batch raised."""
        mine: _Waiting[RequestT, ResultT] = _Waiting(request, self._kind(request))
        with self._lock:
            self._queue.append(mine)
        with self._turn:
            if not mine.result.done():
                self._run_with(mine)
        return mine.result.result()

    def _run_with(self, mine: _Waiting[RequestT, ResultT]) -> None:
        with self._lock:
            others = [one for one in self._queue if one is not mine and one.kind == mine.kind]
            batch = [mine, *others[: self._size - 1]]
            self._queue = [one for one in self._queue if not any(one is taken for taken in batch)]
        try:
            results = self._run([one.request for one in batch])
        except BaseException as error:  # noqa: BLE001 (handed to every thread that waits for it)
            for one in batch:
                one.result.set_exception(error)
            return
        for one, result in zip(batch, results, strict=True):
            if isinstance(result, ItemError):
                one.result.set_exception(result)
            else:
                one.result.set_result(result)
