"""Settings of the process before Prefect is imported, and logging that suits a person at a terminal."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

LOGGERS = ("longvila", "flows", "tasks")
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(LOGGERS),
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
}

DEVICE_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg", "/dev/dri")


def prepare_environment(workspace: Path | None = None) -> None:
    """Set what Prefect and the libraries read when they are imported. What the user has set stays.

    Without a server of the user's (``PREFECT_API_URL``), Prefect keeps its database in ``workspace/prefect``
    and starts a server of its own for the length of the flow.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if sys.platform == "linux" and not any(Path(node).exists() for node in DEVICE_NODES):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns of it into every output
    if workspace is not None and not has_server():
        os.environ.setdefault("PREFECT_HOME", str(workspace.absolute() / "prefect"))
        os.environ.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")
        os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")


def has_server() -> bool:
    """Whether the user runs a Prefect server that flows should report to."""
    return bool(os.environ.get("PREFECT_API_URL"))


class _ForPeople(logging.Filter):
    """Keeps progress records (drawn elsewhere) and Prefect's account of our own errors off the console."""

    def filter(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "progress"):
            return False
        return not (record.name.startswith("prefect") and record.levelno < logging.CRITICAL)


def set_up_logging(*, debug: bool, json_lines: bool = False) -> None:
    """Log to stderr. Has to be called before Prefect is imported, which otherwise adds its own console."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr) if json_lines or debug else _rich_handler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s" if debug else "%(message)s")
    )
    if not debug:
        handler.addFilter(_ForPeople())
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)


def _rich_handler() -> logging.Handler:
    if not sys.stderr.isatty():
        return logging.StreamHandler(sys.stderr)
    from rich.logging import RichHandler

    from flows.cli.display import console

    return RichHandler(
        console=console(), show_path=False, show_level=False, omit_repeated_times=True, markup=False
    )
