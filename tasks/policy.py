"""When a task is tried again, and how long it may take."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.tasks import Task, exponential_backoff

from longvila.errors import LongVilaError, TransientError

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
HOUR_S = 3600.0
NETWORK_DELAYS = exponential_backoff(backoff_factor=5)


def in_flow_or_plain(task: Task[P, R]) -> Callable[P, R]:
    """The task inside a flow; its bare function elsewhere, so that no server is started for it."""
    return task if FlowRunContext.get() is not None else task.fn


def is_transient(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Only what a retry can mend is tried again; what a user has to mend ends the flow at once."""
    try:
        state.result()
    except TransientError as error:
        logger.warning("%s: %s It is tried again while retries are left.", task_run.name or task.name, error)
        return True
    except (LongVilaError, OSError, ValueError, RuntimeError):
        return False
    return False
