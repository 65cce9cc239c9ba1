"""Which rank is lost, when messages fail.

A broken connection or a timeout says nothing of who caused it: the neighbours of a dead rank fail first, then
end, and so break the connections of their own neighbours. So the first rank whose messages fail raises an
alarm in the store that all ranks met at. A thread in every process answers it, whatever its main thread does;
the rank that raised it counts the answers, and its verdict is what every rank reports.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist

from longvila.errors import PeerLost

logger = logging.getLogger(__name__)

POLL_S = 0.5
GRACE_S = 3.0
"""How long the answers to an alarm are awaited. Living processes answer within two polls."""

_ALARMS, _VERDICT, _PRESENT = "longvila/alarms", "longvila/verdict", "longvila/present/{alarm}/{rank}"
_BACKEND = re.compile(r"gloo/|gloo::|\bnccl|processgroup|tcpstore|by peer \[|c10d", re.IGNORECASE)
"""What messages of torch's backends have in them, and those of other errors hardly ever."""

_shared: weakref.WeakValueDictionary[int, Attendance] = weakref.WeakValueDictionary()

Result = TypeVar("Result")


class Attendance:
    """Answers alarms for this rank, and finds out who is lost when its own messages fail.

    ``store`` is the torch.distributed store at which all ranks met (its type hints lack what we need of it).
    """

    def __init__(self, store: Any, *, rank: int, world_size: int) -> None:
        self.rank = rank
        self.world_size = world_size
        self._store = store
        self._lost: list[int] | None = None
        self._told = threading.Event()
        threading.Thread(
            target=_answer_alarms, args=(weakref.ref(self), store.clone(), rank), daemon=True
        ).start()

    @contextmanager
    def naming_the_lost(self) -> Iterator[None]:
        """Turn errors of messages that failed within into a PeerLost that names the ranks to blame."""
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and not _BACKEND.search(str(error)):
                raise
            raise PeerLost(self.verdict(str(error))) from error

    def verdict(self, problem: str) -> str:
        """Return who is lost, the same sentence on every rank. Takes a few seconds at most."""
        try:
            lost = _within(GRACE_S + 6 * POLL_S, self._find_lost)
        except (RuntimeError, TimeoutError):
            if not self._told.wait(2 * POLL_S):
                return (
                    "the process that holds the rendezvous store (rank 0 or the launcher) cannot be reached: "
                    f"{problem}. Look at its log; start again to go on from the last checkpoint."
                )
            lost = self._lost or []
        return _sentence(lost, self.world_size, problem)

    def hear(self, lost: list[int]) -> None:
        """Remember a verdict that was found elsewhere."""
        self._lost = lost
        self._told.set()

    def _find_lost(self) -> list[int]:
        if not self._store.check([_VERDICT]):
            lost = self._count(self._store.add(_ALARMS, 1))
            if not lost:
                return lost  # not a verdict: the next alarm may find one
            self._store.compare_set(_VERDICT, "", json.dumps(lost))
            time.sleep(2 * POLL_S)  # every rank hears of it, before our own end takes the store along
        return json.loads(self._store.get(_VERDICT))

    def _count(self, alarm: int) -> list[int]:
        """Return the ranks that do not answer an alarm."""
        missing = set(range(self.world_size)) - {self.rank}
        end = time.monotonic() + GRACE_S
        while missing and time.monotonic() < end:
            keys = {rank: _PRESENT.format(alarm=alarm, rank=rank) for rank in missing}
            missing = {rank for rank, key in keys.items() if not self._store.check([key])}
            time.sleep(POLL_S / 5)
        return sorted(missing)


def attendance_of(store: Any, *, rank: int, world_size: int) -> Attendance:
    """Return the attendance at a store: one for all groups of a world, as long as any of them is in use."""
    attendance = _shared.get(id(store))
    if attendance is None:
        attendance = _shared[id(store)] = Attendance(store, rank=rank, world_size=world_size)
    return attendance


def _answer_alarms(attendance: weakref.ref[Attendance], store: Any, rank: int) -> None:
    """Answer alarms and listen for the verdict, until nobody needs this rank's attendance any more."""
    answered = 0
    while attendance() is not None and dist.is_initialized():
        try:
            raised = store.add(_ALARMS, 0)
            for alarm in range(answered + 1, raised + 1):
                store.set(_PRESENT.format(alarm=alarm, rank=rank), "1")
            answered = raised
            if raised and store.check([_VERDICT]):
                alive = attendance()
                if alive is not None:
                    alive.hear(json.loads(store.get(_VERDICT)))
                return
        except RuntimeError as error:
            logger.debug("the rendezvous store is gone: %s", error)
            return
        time.sleep(POLL_S)


def _within(seconds: float, call: Callable[[], Result]) -> Result:
    """Return what ``call`` returns, or raise TimeoutError: a store whose host is frozen never answers."""
    answers: list[Result | Exception] = []

    def work() -> None:
        try:
            answers.append(call())
        except RuntimeError as error:
            answers.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        raise TimeoutError("the rendezvous store does not answer")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def _sentence(lost: list[int], world_size: int, problem: str) -> str:
    if not lost:
        return (
            f"messages failed, but all {world_size} ranks are alive: one of them hangs, or is slower than "
            f"the process group's timeout: {problem}. Look at the stacks of all ranks, or raise the timeout."
        )
    names = f"rank {lost[0]}" if len(lost) == 1 else "ranks " + ", ".join(map(str, lost))
    return (
        f"{names} of {world_size} died, or cannot be reached any more: {problem}. "
        f"Look at the log of {names} (out of memory? a lost machine?); start again to go on from the last "
        "checkpoint."
    )
