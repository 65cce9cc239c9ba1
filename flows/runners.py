"""Where the batches of a build run: threads or processes of this machine, or a Dask or Ray cluster's workers.

Workers on other machines need the same package, a storage that they reach (an ``s3://`` prefix or a shared
folder) and their own local folder for the ledger; what is done they read from manifests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prefect import unmapped
from prefect.futures import as_completed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from longvila.config.data import RunnerConfig
from longvila.errors import MachineError, TransientError
from tasks.progress import StepProgress
from tasks.refs import ManifestRef, WorkspaceRef

logger = logging.getLogger(__name__)


@contextmanager
def batch_runner(config: RunnerConfig) -> Iterator[TaskRunner[Any]]:
    """Start what runs the batches, and end it with the block.

    Raises ``MachineError`` when the extra that it needs is not installed, ``TransientError`` when the cluster
    does not answer.
    """
    runner = _MAKERS[config.kind](config)
    logger.info("batches run in %s, %s", config.kind, config.address or f"{config.workers} at once")
    try:
        runner.__enter__()
    except (OSError, ConnectionError) as error:
        raise TransientError(
            f"The {config.kind} cluster at {config.address} does not answer ({error}). Check "
            "data.runner.address, and whether the cluster runs."
        ) from error
    try:
        yield runner
    finally:
        runner.__exit__(None, None, None)


def over_batches(
    runner: TaskRunner[Any],
    task: Any,
    reference: WorkspaceRef,
    over: Mapping[str, Sequence[ManifestRef]],
    **same: Any,
) -> list[ManifestRef]:
    """Run a task on every batch and wait. ``over`` gives, by parameter, one manifest for each batch.

    The first error of any batch is raised, and batches that have not begun are left.
    """
    count = len(next(iter(over.values())))
    if count == 1:
        return [task(workspace=reference, **{name: refs[0] for name, refs in over.items()}, **same)]
    fixed = {name: unmapped(value) for name, value in {"workspace": reference, **same}.items()}
    futures = runner.map(task, {**{name: list(refs) for name, refs in over.items()}, **fixed})
    progress = StepProgress(f"{task.name} batches", unit="batches")
    try:
        for done, future in enumerate(as_completed(list(futures)), start=1):
            future.result()
            progress(done, count)
    except BaseException:
        for future in futures:
            _cancel(future)
        raise
    return [future.result() for future in futures]


def _cancel(future: Any) -> None:
    """Keep a batch that waits from beginning; one that runs ends by itself."""
    cancel = getattr(getattr(future, "wrapped_future", None), "cancel", None)  # Ray's has none
    if cancel is not None:
        cancel()


def _threads(config: RunnerConfig) -> TaskRunner[Any]:
    return ThreadPoolTaskRunner(max_workers=config.workers)


def _processes(config: RunnerConfig) -> TaskRunner[Any]:
    return ProcessPoolTaskRunner(max_workers=config.workers)


def _dask(config: RunnerConfig) -> TaskRunner[Any]:
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise _missing("dask") from error
    if config.address:
        return DaskTaskRunner(address=config.address)
    here = {"n_workers": config.workers, "threads_per_worker": 1, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=here)


def _ray(config: RunnerConfig) -> TaskRunner[Any]:
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise _missing("ray") from error
    if config.address:
        return RayTaskRunner(address=config.address)
    return RayTaskRunner(init_kwargs={"num_cpus": config.workers, "include_dashboard": False})


def _missing(kind: str) -> MachineError:
    return MachineError(
        f"data.runner.kind={kind} needs the extra of that name. Install it: "
        f"pip install 'longvila-pipeline[{kind}]', or set data.runner.kind=threads."
    )


_MAKERS: dict[str, Callable[[RunnerConfig], TaskRunner[Any]]] = {
    "threads": _threads,
    "processes": _processes,
    "dask": _dask,
    "ray": _ray,
}
