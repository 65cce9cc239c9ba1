"""Data sets for others, and from others: views of our shards, an index for foreign tars."""

from __future__ import annotations

import logging
from typing import Literal

from prefect import task

from longvila.data.foreign import ForeignReport, index_foreign
from longvila.data.views import ViewName, ViewReport
from longvila.data.views import export_view as write_view
from longvila.errors import ConfigError
from longvila.records import Split
from longvila.storage import Storage, open_storage
from tasks.artifacts import add_table
from tasks.policy import HOUR_S, is_transient
from tasks.progress import StepProgress
from tasks.refs import WorkspaceRef

logger = logging.getLogger(__name__)


@task(
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=is_transient,
    timeout_seconds=4 * HOUR_S,
    tags=["views"],
    task_run_name="view-{name}-{view}",
)
def export_view(
    workspace: WorkspaceRef,
    name: str,
    view: ViewName,
    split: Split = "train",
    media: Literal["auto", "mp4", "frames"] = "auto",
    crf: int = 16,
    out: str = "",
) -> ViewReport:
    """Write a split of a data set in another trainer's layout; see longvila.data.views.

    ``name`` is that of a data set of the workspace, ``out`` a folder or ``s3://`` prefix for the view, empty
    for ``views/NAME/VIEW-SPLIT`` in the workspace. Energon's view lies beside the shards.
    """
    opened = workspace.open()
    target, folder = _place(out) if out else (None, None)
    report = write_view(
        opened.storage,
        name,
        view,
        split=split,
        media=media,
        crf=crf,
        out=target,
        folder=folder,
        on_progress=StepProgress(f"view {view} of {name}", unit="samples"),
    )
    add_table(f"view-{name}-{view}", [report.model_dump(mode="json", exclude={"files", "examples"})])
    for example in report.examples:
        logger.warning("Left out: %s", example)
    return report


@task(
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=is_transient,
    timeout_seconds=4 * HOUR_S,
    tags=["shards"],
    task_run_name="index-{name}",
)
def index_tars(url: str, name: str, fps: float = 2.0, max_frames: int = 256) -> ForeignReport:
    """Index the foreign tars in a folder or below an ``s3://`` prefix; see longvila.data.foreign."""
    report = index_foreign(
        open_storage(url), name, fps=fps, max_frames=max_frames,
        on_progress=StepProgress(f"index {name}", unit="shards"),
    )  # fmt: skip
    add_table(f"index-{name}", [report.model_dump(mode="json", exclude={"examples"})])
    for example in report.examples:
        logger.warning("Left out: %s", example)
    return report


def _place(out: str) -> tuple[Storage, str]:
    """The storage above a view's folder, and the folder's name."""
    parent, _, folder = out.rstrip("/").rpartition("/")
    if not folder or parent.endswith(":/"):
        raise ConfigError(
            f"out={out!r} has no folder of the view's own. Give FOLDER/NAME or s3://bucket/NAME."
        )
    return open_storage(parent or ("/" if out.startswith("/") else ".")), folder
