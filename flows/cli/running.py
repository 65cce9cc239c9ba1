"""Runs a flow or a task in this process, with progress, a graceful first Ctrl-C, and no noise."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from flows.cli.display import progress_display
from flows.cli.runtime import has_server, prepare_environment, set_up_logging
from flows.params import DataParams, FlowParams
from flows.registry import FlowEntry
from longvila.errors import ConfigError, ExitCode, NetworkError, Stopped

logger = logging.getLogger(__name__)


def run_flow(entry: FlowEntry, params: FlowParams, *, debug: bool, json_lines: bool) -> None:
    """Check what can be checked without Prefect, then run the flow; the result is the last line printed."""
    from flows.preflight import check_before_start, check_build

    set_up_logging(debug=debug, json_lines=json_lines)
    if isinstance(params, DataParams):
        check_build(params)
    else:
        check_before_start(params)
    prepare_environment(Path(params.workspace))
    check_server()
    with _server(), stop_on_interrupt(), progress_display(json_lines=json_lines):
        result = _call(entry, params)
    print_result(result, json_lines=json_lines)


def _server() -> AbstractContextManager[None]:
    """The user's server, or one in the workspace for the length of the flow."""
    from flows.cli.own_server import own_server

    if has_server():
        return nullcontext()
    return own_server(Path(os.environ["PREFECT_HOME"]))


def check_server() -> None:
    """Raise ``NetworkError`` when the user's Prefect server is away, rather than fail later."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return
    import httpx

    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=10.0).raise_for_status()
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise ConfigError(
            f"PREFECT_API_URL={url} is no address. Write http://HOST:PORT/api, or unset it."
        ) from error
    except httpx.HTTPError as error:
        raise NetworkError(
            f"PREFECT_API_URL={url} does not answer ({type(error).__name__}). Start the server with "
            "'longvila up', or unset PREFECT_API_URL to run without one."
        ) from error


def _call(entry: FlowEntry, params: FlowParams) -> Any:
    flow = entry.load()
    from prefect.exceptions import TerminationSignal

    try:
        return flow(params)
    except TerminationSignal as error:
        raise Stopped(
            "Ended by a signal. What is finished is kept and training goes on; the same command joins it."
        ) from error


def print_result(result: Any, *, json_lines: bool) -> None:
    """Write what a flow or task gave: for people its last word, for programs one JSON object."""
    from pydantic_core import to_jsonable_python

    if json_lines:
        plain = to_jsonable_python(result, fallback=str, inf_nan_mode="null")
        sys.stdout.write(json.dumps({"event": "result", "result": plain}) + "\n")
    elif isinstance(result, list | tuple):
        sys.stdout.writelines(f"{item}\n" for item in result)
    elif result is not None:
        sys.stdout.write(f"{getattr(result, 'last_word', result)}\n")
    sys.stdout.flush()


@contextmanager
def stop_on_interrupt() -> Iterator[None]:
    """Ctrl-C once asks for a good end; twice ends at once, trainers that this process started included."""
    from tasks.stopping import clear_stop, request_stop, stop_requested

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        if stop_requested():
            _kill_trainers()
            os._exit(int(ExitCode.INTERRUPTED))
        request_stop()
        sys.stderr.write(
            "\nStopping after what is in hand; what is finished is kept. Ctrl-C again ends at once.\n"
        )

    clear_stop()
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill_trainers() -> None:
    from tasks.stopping import watched_runs

    if not watched_runs():
        return
    from longvila.training import RunPaths
    from longvila.training.launch.local import kill

    for run_dir in watched_runs():
        kill(RunPaths(Path(run_dir)))
