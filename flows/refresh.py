"""Look for what is new in the sources and build only that."""

from __future__ import annotations

import logging
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.build_dataset import build_dataset
from flows.common import begin
from flows.evaluate import evaluate
from flows.params import BuildParams, EvaluateParams, RefreshParams, narrow
from flows.results import RefreshResult
from flows.state import list_marks, recall_dataset
from tasks.artifacts import add_note
from tasks.checkpoints import has_checkpoint
from tasks.servers import open_workspace

logger = logging.getLogger(__name__)


@flow(
    name="refresh-dataset",
    flow_run_name="refresh-{params.recipe}",
    description="Build what is new in the sources; ends at once when nothing is.",
)
def refresh(params: RefreshParams) -> Any:
    """Compare the source list with what was built; build what is new, then measure the newest checkpoint.

    Looks at what there is now, never at the time that the run was meant for. With nothing new the run ends
    as *Skipped*.
    """
    begin("refresh-dataset")
    recipe = params.load_data_recipe()
    with open_workspace(params.workspace, params.storage) as reference:
        before = recall_dataset(reference, recipe.name)
        known = before.sources if before else {}
        now = list_marks(reference, recipe.data)
        new = tuple(name for name, mark in now.items() if known.get(name) != mark)
        if not new:
            skipped = RefreshResult(status="Skipped: nothing is new in the sources.", dataset=before)
            logger.info(skipped.status)
            return Completed(name="Skipped", message=skipped.status, data=skipped)
        built = build_dataset(narrow(params, BuildParams, storage=reference.storage))
        evaluations = {}
        if params.evaluate and has_checkpoint(reference.open()):
            evaluations = evaluate(narrow(params, EvaluateParams, storage=reference.storage)).results
    status = (
        f"{len(new)} new of {len(built.sources)} sources: {', '.join(new[:8])}{' …' if len(new) > 8 else ''}"
    )
    add_note("refresh", f"### Refresh\n\n{status}\n\nEvaluated: {', '.join(evaluations) or 'nothing'}")
    return RefreshResult(status=status, new_sources=new, dataset=built, evaluations=evaluations)
