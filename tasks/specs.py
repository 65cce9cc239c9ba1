"""From a recipe and a workspace to the specification of one training run."""

from __future__ import annotations

from longvila.config.load import validate
from longvila.config.recipe import Recipe
from longvila.config.stage import StageConfig
from longvila.errors import ConfigError
from longvila.storage import Workspace
from longvila.training import RunSpec, fingerprint
from tasks.checkpoints import find_checkpoint, start_of
from tasks.refs import WorkspaceRef


def spec_for(
    recipe: Recipe,
    stage_name: str,
    reference: WorkspaceRef,
    *,
    init_from: str = "",
    engine: str = "deepspeed",
    stage: StageConfig | None = None,
    label: str = "",
) -> RunSpec:
    """The run of one stage (or of ``stage``, a variant of it) in a workspace.

    ``init_from`` is a checkpoint's folder or name; empty for the stage before. The run's folder is named by
    the fingerprint of everything that decides the result, so a changed setting gets a folder of its own.
    """
    if engine not in ("deepspeed", "torch"):
        raise ConfigError(f"engine={engine!r} is not known. Use deepspeed, or torch for one process.")
    try:
        chosen = stage or recipe.stage(stage_name)
    except KeyError as error:
        raise ConfigError(str(error.args[0])) from error
    workspace = reference.open()
    settings = one_process(chosen) if engine == "torch" else chosen
    values = {
        "stage": settings,
        "model": recipe.model,
        "init_from": str(find_checkpoint(workspace, init_from or start_of(recipe, stage_name)).resolve()),
        "datasets": locate_datasets(chosen, workspace),
        "run_dir": str(workspace.root / "runs" / "draft"),
        "cache_dir": str(workspace.root / "cache" / "lengths"),
        "engine": engine,
        "label": label,
    }
    draft = validate(RunSpec, values, origin=f"stage {stage_name} of recipe {recipe.name}")
    name = f"{label or stage_name}-{fingerprint(draft)[:10]}"
    return draft.model_copy(update={"run_dir": str(workspace.run_dir(name))})


def one_process(stage: StageConfig) -> StageConfig:
    """The same stage for one process, without parallel degrees."""
    update = {"num_processes": 1, "ulysses_degree": 1, "ring_degree": 1, "smaller_degrees": ()}
    return stage.model_copy(update=update)


def locate_datasets(stage: StageConfig, workspace: Workspace) -> dict[str, str]:
    """Say for every data set of the mixture where its folder is: a plain name lies in the workspace."""
    names = [entry.dataset for entry in stage.mixture]
    return {name: name if "/" in name else workspace.url(f"shards/{name}") for name in names}
