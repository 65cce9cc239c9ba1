"""The whole life of a model: data set, start, five stages, controls, evaluation, report."""

from __future__ import annotations

import logging
from pathlib import Path

from prefect import flow

from flows.build_dataset import build_dataset
from flows.common import begin
from flows.controls import make_controls
from flows.evaluate import evaluate
from flows.params import BuildParams, EvaluateParams, LifecycleParams, TrainPipelineParams, narrow
from flows.preflight import check_before_start
from flows.results import LifecycleResult, PipelineResult
from flows.state import check_rejections
from flows.timing import Timer
from flows.train import train_pipeline
from longvila.config.recipe import Recipe
from longvila.errors import ConfigError
from tasks.artifacts import add_link
from tasks.contents import BuiltDataset
from tasks.refs import WorkspaceRef
from tasks.report import build_report
from tasks.servers import open_workspace

logger = logging.getLogger(__name__)


@flow(
    name="lifecycle",
    flow_run_name="lifecycle-{params.recipe}",
    description="The whole life of a model: data set, five stages, evaluation, report.",
)
def lifecycle(params: LifecycleParams) -> LifecycleResult:
    """Build, train, evaluate, report. Killed anywhere and started again, it goes on where it was."""
    begin("lifecycle")
    recipe = check_before_start(params)
    if recipe.data is None:
        raise ConfigError(
            f"Recipe {recipe.name!r} has no data section, so its life cannot start from videos. "
            "Train on its shards with: longvila flow run train-pipeline"
        )
    with open_workspace(params.workspace, params.storage) as reference:
        timer = Timer(Path(reference.root) / "timings.json")
        inner = params.model_copy(update={"storage": reference.storage})
        with timer("data set"):
            dataset = build_dataset(narrow(inner, BuildParams))
        with timer("five stages"):
            trained = train_pipeline(narrow(inner, TrainPipelineParams, until_stage=recipe.stages[-1].name))
        with timer("controls"):
            controls = make_controls(recipe, reference, engine=params.engine)
        with timer("evaluation"):
            measured = evaluate(
                narrow(inner, EvaluateParams, checkpoints=[stage.name for stage in recipe.stages] + controls)
            )
        report = _report(recipe, reference, params, dataset, trained, measured.results, timer)
    check_rejections(dataset, recipe.data)
    return LifecycleResult(
        dataset=dataset, stages=trained.stages, evaluations=measured.results, report=report
    )


def _report(
    recipe: Recipe,
    reference: WorkspaceRef,
    params: LifecycleParams,
    dataset: BuiltDataset,
    trained: PipelineResult,
    evaluations: dict[str, str],
    timer: Timer,
) -> str:
    report = build_report(
        workspace=reference,
        recipe=recipe,
        dataset=dataset,
        outcomes=[stage.outcome for stage in trained.stages],
        evaluations=evaluations,
        seconds=timer.seconds,
        command=f"longvila flow run lifecycle --recipe {params.recipe} --workspace {params.workspace} "
        f"--storage {params.storage}",
    )
    add_link("report", report, text="report")
    return report
