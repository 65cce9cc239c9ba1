"""Measure checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow

from flows.common import begin
from flows.params import EvaluateParams
from flows.results import EvaluationResult
from flows.state import need_dataset
from longvila.config.recipe import Recipe
from tasks.checkpoints import find_checkpoint
from tasks.evaluation import evaluate_checkpoint
from tasks.refs import WorkspaceRef
from tasks.servers import open_workspace

logger = logging.getLogger(__name__)


@flow(
    name="evaluate-checkpoint",
    flow_run_name="evaluate-{params.recipe}",
    description="Measure checkpoints: needle grid, accuracy against frames, held-out questions.",
)
def evaluate(params: EvaluateParams) -> EvaluationResult:
    """Measure each checkpoint that is named, or the newest one; what was measured before is read back."""
    begin("evaluate")
    recipe = params.load_recipe()
    with open_workspace(params.workspace, params.storage) as reference:
        results = measure_all(recipe, reference, params.checkpoints or ("",), measure=evaluate_checkpoint)
    return EvaluationResult(results=results)


def measure_all(
    recipe: Recipe, reference: WorkspaceRef, checkpoints: tuple[str, ...], *, measure: Callable[..., Any]
) -> dict[str, str]:
    """Measure checkpoints one after another; ``measure`` is the task, or its bare function."""
    data = need_dataset(reference, recipe.name) if recipe.data else None
    results: dict[str, str] = {}
    for given in checkpoints:
        folder = find_checkpoint(reference.open(), given)
        name = checkpoint_name(folder)
        results[name] = measure(
            workspace=reference,
            checkpoint=str(folder),
            name=name,
            config=recipe.evaluation,
            frames=recipe.data.frames if recipe.data else None,
            videos=data.videos if data else None,
        )
    return results


def checkpoint_name(folder: Path) -> str:
    """What a checkpoint is called: its name in the workspace, or that of the run that exported it."""
    return folder.parent.name if folder.name == "export" else folder.name
