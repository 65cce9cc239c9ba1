"""Train one stage: start its detached trainer or join the one that lives, and watch it to the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from prefect import task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException, TerminationSignal

from longvila.training import Progress, RunSpec, StageOutcome
from longvila.training.launch import attach
from longvila.training.launch.local import request_stop
from longvila.training.supervise import run_stage
from tasks.artifacts import add_link, add_table
from tasks.policy import is_transient
from tasks.progress import StepProgress
from tasks.stopping import stop_requested, watching

logger = logging.getLogger(__name__)
ASK_SERVER_EVERY_S = 5.0


@task(
    retries=2,
    retry_delay_seconds=[15, 60],
    retry_condition_fn=is_transient,
    tags=["train"],
    task_run_name="train-{spec.name}",
)
def train_stage(spec: RunSpec) -> StageOutcome:
    """Train one stage. Call it directly, never with ``.submit()``: only the main thread hears a cancel.

    Training itself runs detached and survives this task; a later call joins it. Raises as
    ``longvila.training.supervise.run_stage``.
    """
    outcome = supervise(spec)
    add_table(f"stage-{spec.name}", [outcome.model_dump(mode="json")], description=f"How {spec.name} went")
    add_link(f"checkpoint-{spec.name}", Path(outcome.export_dir), text=f"checkpoint of {spec.name}")
    return outcome


def supervise(spec: RunSpec) -> StageOutcome:
    """Watch a run to its end, show its progress, and pass on a wish to stop."""
    progress = StepProgress(f"train {spec.name}", unit="steps")
    asked_to_stop = StopWish()

    def on_progress(state: Progress) -> None:
        note = f"loss {state.loss:.3f}" if state.loss is not None else state.phase
        progress.show(state.step, state.total_steps, note=note)

    with watching(spec.run_dir):
        try:
            outcome = run_stage(spec, on_progress=on_progress, should_stop=asked_to_stop)
        except TerminationSignal:
            _on_termination(spec, asked_to_stop)
            raise
    said = "was complete already" if outcome.reused else f"took {outcome.train_seconds:.0f} s of training"
    logger.info("stage %s: %d steps, %s", spec.name, outcome.step, said)
    return outcome


def _on_termination(spec: RunSpec, asked_to_stop: StopWish) -> None:
    """This process is being ended. A cancelled run stops its trainer; otherwise training goes on."""
    if asked_to_stop.ask_server():
        request_stop(spec.paths)
        logger.warning("cancelled: %s saves a checkpoint and ends", spec.name)
    elif attach(spec.paths) is not None:
        logger.warning("this watcher ends; training of %s goes on and is joined by the next run", spec.name)


class StopWish:
    """Whether someone wants training to stop: Ctrl-C here, or *Cancel* on the flow run.

    The worker tells a cancelled run by a signal, but its watcher dies for good when the server is away for
    half a minute. So the run's state is looked up as well; a server that does not answer says nothing.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_at = clock()
        self._cancelled = False

    def __call__(self) -> bool:
        """Whether to stop now."""
        if stop_requested() or self._cancelled:
            return True
        if self._clock() - self._asked_at >= ASK_SERVER_EVERY_S:
            self.ask_server()
        return self._cancelled

    def ask_server(self) -> bool:
        """Look up the state of the flow run that this task is part of."""
        self._asked_at = self._clock()
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            return False
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(context.flow_run.id).state
        except (httpx.HTTPError, PrefectException, OSError) as error:
            logger.debug("the server did not say whether to stop: %s", error)
            return self._cancelled
        self._cancelled = state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)
        return self._cancelled
