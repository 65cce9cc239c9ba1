"""How a trainer is asked to end: SIGTERM, SIGUSR2 (a scheduler's warning), or a STOP file."""

from __future__ import annotations

import faulthandler
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class StopRequest:
    """Whether this process was asked to end. All processes must agree before any of them obeys."""

    def __init__(self, stop_file: Path) -> None:
        self._stop_file = stop_file
        self._signalled = False

    @property
    def asked(self) -> bool:
        """Whether a signal came or the STOP file is there."""
        return self._signalled or self._stop_file.exists()

    def on_signal(self, number: int, _frame: object) -> None:
        """Remember the signal; the loop looks at it after the step."""
        logger.warning("got %s: saving a checkpoint after this step", signal.Signals(number).name)
        self._signalled = True


@contextmanager
def listening(stop_file: Path) -> Iterator[StopRequest]:
    """Take the signals for the duration of a block. SIGUSR1 writes all stacks to stderr, for hangs."""
    request = StopRequest(stop_file)
    before = {number: signal.signal(number, request.on_signal) for number in _SIGNALS}
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    try:
        yield request
    finally:
        faulthandler.unregister(signal.SIGUSR1)
        for number, handler in before.items():
            signal.signal(number, handler)
