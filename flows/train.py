"""Train one stage, or the stages one after another."""

from __future__ import annotations

import logging

from prefect import flow

from flows.common import begin
from flows.params import TrainPipelineParams, TrainStageParams
from flows.preflight import check_before_start
from flows.results import PipelineResult, StageResult
from longvila.config.recipe import Recipe
from longvila.config.stage import STAGES
from longvila.errors import ConfigError
from tasks.checkpoints import publish_checkpoint, remember_latest
from tasks.model import start_checkpoint
from tasks.refs import WorkspaceRef
from tasks.servers import open_workspace
from tasks.specs import spec_for
from tasks.training import train_stage as train

logger = logging.getLogger(__name__)


@flow(
    name="train-stage",
    flow_run_name="train-{params.stage}-{params.recipe}",
    description="Train one stage from an exported checkpoint.",
)
def train_stage(params: TrainStageParams) -> StageResult:
    """Train one stage; a stage that is complete with the same settings and data is not trained again."""
    begin("train-stage")
    recipe = check_before_start(params)
    with open_workspace(params.workspace, params.storage) as reference:
        if not params.init_from and params.stage == recipe.stages[0].name:
            start_checkpoint(recipe, reference)
        return run_one(recipe, reference, params.stage, init_from=params.init_from, engine=params.engine)


@flow(
    name="train-pipeline",
    flow_run_name="train-{params.from_stage}-to-{params.until_stage}-{params.recipe}",
    description="Train the stages one after another.",
)
def train_pipeline(params: TrainPipelineParams) -> PipelineResult:
    """Train from one stage until another, in order."""
    begin("train-pipeline")
    recipe = check_before_start(params)
    names = stages_between(recipe, params.from_stage, params.until_stage)
    with open_workspace(params.workspace, params.storage) as reference:
        if not params.init_from and names[0] == recipe.stages[0].name:
            start_checkpoint(recipe, reference)
        results = []
        for name in names:
            init_from = params.init_from if name == names[0] else ""
            results.append(run_one(recipe, reference, name, init_from=init_from, engine=params.engine))
    return PipelineResult(stages=tuple(results))


def run_one(
    recipe: Recipe, reference: WorkspaceRef, name: str, *, init_from: str = "", engine: str
) -> StageResult:
    """Train one stage and name its checkpoint. The task is called directly: it has to hear a cancel."""
    spec = spec_for(recipe, name, reference, init_from=init_from, engine=engine)
    outcome = train(spec)
    workspace = reference.open()
    checkpoint = publish_checkpoint(workspace, name, spec.paths.export)
    remember_latest(workspace, name)
    return StageResult(name=name, checkpoint=checkpoint, outcome=outcome)


def stages_between(recipe: Recipe, first: str, last: str) -> list[str]:
    """The recipe's stages from ``first`` to ``last``, both included."""
    low, high = STAGES.index(first), STAGES.index(last)  # type: ignore[arg-type]
    chosen = [stage.name for stage in recipe.stages if low <= STAGES.index(stage.name) <= high]
    if not chosen:
        have = ", ".join(stage.name for stage in recipe.stages)
        raise ConfigError(f"No stage of {recipe.name!r} lies from {first} to {last}. It has: {have}.")
    return chosen
