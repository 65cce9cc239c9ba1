"""Draws progress: bars on a terminal, JSON lines when piped."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

PROGRESS_LOGGER = "longvila.progress"


@cache
def console() -> Console:
    """The one console on stderr, shared by bars and log lines so that they do not overwrite each other."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def progress_display(*, json_lines: bool) -> Iterator[None]:
    """Show progress records while the block runs.

    Bars on a terminal; JSON lines on stdout when it is piped, every tenth of a step, or all of them with
    ``json_lines``.
    """
    logger = logging.getLogger(PROGRESS_LOGGER)
    if json_lines or not sys.stdout.isatty():
        with _attached(logger, _JsonLines(sys.stdout, tenths_only=not json_lines)):
            yield
    elif sys.stderr.isatty():
        with _bars() as bars, _attached(logger, _Bars(bars)):
            yield
    else:
        yield


@contextmanager
def _attached(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False  # these records are drawn here, and nowhere else
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _bars() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=36),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=console(),
    )


class _Bars(logging.Handler):
    """One bar per step."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        facts = _facts(record)
        if facts is None:
            return
        name = facts["name"]
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=facts["total"], note="")
        self._progress.update(
            self._bars[name], completed=facts["done"], total=facts["total"], note=facts["note"]
        )


class _JsonLines(logging.Handler):
    """Progress records as JSON objects, for programs and for logs of batch systems."""

    def __init__(self, stream: TextIO, *, tenths_only: bool) -> None:
        super().__init__()
        self._stream = stream
        self._tenths_only = tenths_only
        self._tenths: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        facts = _facts(record)
        if facts is None:
            return
        tenth = 10 * facts["done"] // max(facts["total"], 1)
        if self._tenths_only and self._tenths.get(facts["name"]) == tenth:
            return
        self._tenths[facts["name"]] = tenth
        self._stream.write(json.dumps({"event": "progress", **facts}) + "\n")
        self._stream.flush()


def _facts(record: logging.LogRecord) -> dict[str, Any] | None:
    return getattr(record, "progress", None)
