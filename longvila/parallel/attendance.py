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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from longvila.errors import PeerLost

logger = logging.getLogger(__name__)

POLL_S = 0.5
GRACE_S = 3.0
"""How long the answers to an alarm are awaited. Living processes answer within two polls."""

_ALARM, _VERDICT, _PRESENT = "longvila/alarm", "longvila/verdict", "longvila/present/{rank}"
_LOST = re.compile(
    r"connection (reset|closed|refused)|broken pipe|read error|timed out|timeout|nccl|socket|peer",
    re.IGNORECASE,
)


class Attendance:
    """Answers alarms for this rank, and finds out who is lost when its own messages fail.

    ``store`` is the torch.distributed store at which all ranks met (its type hints lack what we need of it).
    """

    def __init__(self, store: Any, *, rank: int, world_size: int) -> None:
        self.rank = rank
        self.world_size = world_size
        self._store = store
        self._verdict: str | None = None
        self._told = threading.Event()
        thread = threading.Thread(
            target=_answer_alarms, args=(weakref.ref(self), store.clone(), rank), daemon=True
        )
        thread.start()

    @contextmanager
    def naming_the_lost(self) -> Iterator[None]:
        """Turn errors of messages that failed within into a PeerLost that names the ranks to blame."""
        try:
            yield
        except RuntimeError as error:
            if not _LOST.search(str(error)):
                raise
            raise PeerLost(self.verdict(str(error))) from error

    def verdict(self, problem: str) -> str:
        """Return who is lost, the same sentence on every rank. Takes up to ``GRACE_S``."""
        try:
            if not self._store.check([_VERDICT]):
                self._store.set(_ALARM, "1")
                self._store.compare_set(_VERDICT, "", json.dumps(self._count()))
                time.sleep(2 * POLL_S)  # every rank hears of it, before our own end takes the store along
            return _sentence(json.loads(self._store.get(_VERDICT)), self.world_size, problem)
        except RuntimeError:
            if self._told.wait(2 * POLL_S):
                assert self._verdict is not None
                return _sentence(json.loads(self._verdict), self.world_size, problem)
            return (
                f"the process that holds the rendezvous store (rank 0 or the launcher) cannot be reached: "
                f"{problem}. Look at its log; training resumes from its last checkpoint."
            )

    def hear(self, verdict: str) -> None:
        """Remember a verdict that was found elsewhere."""
        self._verdict = verdict
        self._told.set()

    def _count(self) -> list[int]:
        """Return the ranks that do not answer the alarm."""
        missing = set(range(self.world_size)) - {self.rank}
        end = time.monotonic() + GRACE_S
        while missing and time.monotonic() < end:
            missing = {rank for rank in missing if not self._store.check([_PRESENT.format(rank=rank)])}
            time.sleep(POLL_S / 5)
        return sorted(missing)


def _answer_alarms(attendance: weakref.ref[Attendance], store: Any, rank: int) -> None:
    """Answer an alarm and listen for the verdict, until nobody needs this rank's attendance any more."""
    answered = False
    while attendance() is not None:
        try:
            if not answered and store.check([_ALARM]):
                store.set(_PRESENT.format(rank=rank), "1")
                answered = True
            if answered and store.check([_VERDICT]):
                alive = attendance()
                if alive is not None:
                    alive.hear(store.get(_VERDICT).decode())
                return
        except RuntimeError as error:
            logger.debug("the rendezvous store is gone: %s", error)
            return
        time.sleep(POLL_S)


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
