"""Measure one checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

from prefect import task

from longvila.config.evaluation import EvalConfig
from longvila.config.footage import FramesConfig
from longvila.curation.composing.frame_bank import FrameBank
from longvila.data import open_index
from longvila.evaluation import plots, runner
from longvila.evaluation.results import EvalResult, read_result
from longvila.evaluation.statistics import Share
from longvila.evaluation.weights import weight_digest
from longvila.records import content_id
from longvila.storage import Workspace
from tasks.artifacts import add_picture, add_table
from tasks.banks import load_bank, videos_of
from tasks.policy import HOUR_S, is_transient
from tasks.progress import StepProgress
from tasks.refs import ManifestRef, WorkspaceRef

logger = logging.getLogger(__name__)
VERSION = 1


@task(
    retries=1,
    retry_delay_seconds=10,
    retry_condition_fn=is_transient,
    timeout_seconds=12 * HOUR_S,
    tags=["evaluate"],
    task_run_name="evaluate-{name}",
)
def evaluate_checkpoint(
    workspace: WorkspaceRef,
    checkpoint: str,
    name: str,
    config: EvalConfig,
    frames: FramesConfig | None = None,
    videos: ManifestRef | None = None,
) -> str:
    """Measure a checkpoint and return the path of its result file; what was measured before is read back.

    ``videos`` are those of the data set: the needle grid hides its cards in the held-out ones.
    """
    opened = workspace.open()
    out_dir = opened.root / "reports" / f"{name}-{_key(opened, checkpoint, config, frames, videos)}"
    path = out_dir / runner.RESULT_FILE
    if not path.is_file():
        result = runner.evaluate_checkpoint(
            Path(checkpoint),
            config,
            name=name,
            out_dir=out_dir,
            haystack=_haystack(opened, config, frames, videos),
            datasets=_datasets(opened, config),
            cache_dir=opened.root / "cache" / "features",
            progress=_Parts(name),
        )
        _show(result)
    return str(path)


def _key(
    workspace: Workspace,
    checkpoint: str,
    config: EvalConfig,
    frames: FramesConfig | None,
    videos: ManifestRef | None,
) -> str:
    """An id of all that decides the result."""
    shards = config.qa and open_index(workspace.storage, config.qa.dataset).hash
    heldout = [video.sha256 for video in videos_of(workspace, videos, "heldout")] if videos else []
    shown = frames and [frames.fps, frames.size]
    weights = weight_digest(Path(checkpoint))
    return content_id(VERSION, weights, config.model_dump(mode="json"), shards, heldout, shown, length=10)


def _haystack(
    workspace: Workspace, config: EvalConfig, frames: FramesConfig | None, videos: ManifestRef | None
) -> FrameBank | None:
    if (config.needle is None and config.frames_curve is None) or frames is None or videos is None:
        return None
    return load_bank(workspace, videos_of(workspace, videos, "heldout"), fps=frames.fps, size=frames.size)


def _datasets(workspace: Workspace, config: EvalConfig) -> dict[str, str]:
    return {} if config.qa is None else {config.qa.dataset: workspace.url(f"shards/{config.qa.dataset}")}


class _Parts:
    """Progress of each thing that is measured."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._steps: dict[str, StepProgress] = {}

    def __call__(self, part: str, done: int, total: int) -> None:
        label = f"{self._name}: {part}"
        self._steps.setdefault(part, StepProgress(label, unit="questions"))(done, total)


def _show(result: EvalResult) -> None:
    rows = []
    if result.needle:
        rows += [
            {"what": f"needle, {row.frames} frames", **_cells(row.generated)} for row in result.needle.rows
        ]
        add_picture(f"needle-{result.name}", plots.needle_heat_map(result.needle), description="needle grid")
    if result.frames_curve:
        rows += [
            {"what": f"{p.sampled} frames sampled", **_cells(p.measured)} for p in result.frames_curve.points
        ]
    if result.qa:
        rows += [{"what": f"questions: {kind.kind}", **_cells(kind.model)} for kind in result.qa.kinds]
    add_table(f"scores-{result.name}", rows, description=f"What {result.name} answers rightly")


def _cells(share: Share) -> dict[str, object]:
    return {
        "right": share.right,
        "of": share.total,
        "share": round(share.value, 3),
        "low": round(share.interval.low, 3),
        "high": round(share.interval.high, 3),
    }


def load_result(path: str) -> EvalResult:
    """Read a result back."""
    return read_result(Path(path))
