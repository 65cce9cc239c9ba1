"""One way to ask everything that runs in this process to come to a good end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from longvila.errors import Stopped

_requested = threading.Event()


def request_stop() -> None:
    """Ask for a stop: steps end after the item in hand, training after a checkpoint."""
    _requested.set()


def stop_requested() -> bool:
    """Whether a stop was asked for."""
    return _requested.is_set()


def clear_stop() -> None:
    """Forget an earlier request."""
    _requested.clear()


def check_stop(what: str) -> None:
    """Raise ``Stopped`` when a stop was asked for."""
    if _requested.is_set():
        raise Stopped(
            f"Stopped on request during {what}. What is finished is kept; start the same command to go on."
        )


_watched: set[str] = set()


@contextmanager
def watching(run_dir: str) -> Iterator[None]:
    """Remember that this process watches a training run, for as long as the block lasts."""
    _watched.add(run_dir)
    try:
        yield
    finally:
        _watched.discard(run_dir)


def watched_runs() -> list[str]:
    """Folders of the training runs that this process watches."""
    return sorted(_watched)
