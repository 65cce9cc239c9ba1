"""What every entry flow does first."""

from __future__ import annotations

import logging

from longvila.errors import Stopped
from tasks.stopping import stop_requested

LOGGERS = ("longvila", "flows", "tasks")


def begin(name: str) -> None:
    """Let the library's own messages through to Prefect's log, and look whether a stop was asked for."""
    for logger_name in LOGGERS:
        logger = logging.getLogger(logger_name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
    if stop_requested():
        raise Stopped(f"Stopped before {name}. Start the same command to go on.")
