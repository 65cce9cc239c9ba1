"""What can be checked before anything starts: the recipe, the sources, the workspace, the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flows.params import DataParams, FlowParams, LifecycleParams
from longvila.config.recipe import DataRecipe, Recipe
from longvila.config.sources import is_relative, load_sources, read_source_list, source_list_path
from longvila.errors import InputError
from longvila.planning.disk import RESERVE_BYTES, check_free_space, estimate_bytes, shard_bytes
from longvila.records import Source, Split


def check_before_start(params: FlowParams) -> Recipe:
    """Return the recipe when the run can start.

    Raises ``ConfigError`` or ``InputError`` for the recipe and its sources, ``MachineError`` for a workspace
    that cannot be written or a disk too small for what the recipe needs.
    """
    recipe = params.load_recipe()
    check_places(recipe)
    source_bytes = check_sources(recipe)
    if isinstance(params, LifecycleParams):
        check_heldout(recipe)
        check_models(recipe)
    _check_workspace(params, estimate_bytes(recipe, source_bytes=source_bytes))
    return recipe


def check_build(params: DataParams) -> DataRecipe:
    """Return the recipe of a data set when the build can start. Raises as ``check_before_start``."""
    recipe = params.load_data_recipe()
    source_bytes = check_sources(recipe)
    check_models(recipe)
    _check_workspace(params, RESERVE_BYTES + source_bytes + shard_bytes(recipe.data))
    return recipe


def check_places(recipe: Recipe) -> None:
    """Check that folders which the recipe names are there: weights, tokenizer, shards made elsewhere.

    Hub names and object storage are left to the step that reads them. Raises ``InputError``.
    """
    model = recipe.model
    named = {
        "model.vision.pretrained": model.vision.pretrained,
        "model.llm.pretrained": model.llm.pretrained,
        "model.tokenizer": model.tokenizer,
    }
    named |= {
        f"stages.{stage.name}.mixture": entry.dataset
        for stage in recipe.stages
        for entry in stage.mixture
        if "/" in entry.dataset
    }
    for field, given in named.items():
        if given is None or not given.startswith(("/", "./", "../", "~")):
            continue
        if not Path(given).expanduser().is_dir():
            raise InputError(
                f"{field} of recipe {recipe.name!r}: there is no folder {given}. Give one that is there."
            )


def check_sources(recipe: Recipe | DataRecipe) -> int:
    """Check that the source list can be read; return the bytes of the sources that lie beside it."""
    if recipe.data is None:
        return 0
    listed = source_list_path(recipe.data.sources)
    folder = listed.parent
    declared = read_source_list(recipe.data.sources)
    sources = load_sources(recipe.data.sources)
    if not declared.is_open:
        _need_split(listed, sources, "train")
    local = [folder / source.url for source in sources if is_relative(source.url)]
    found = [path for path in local if path.is_file()]
    if local and not found:
        raise InputError(
            f"None of the {len(local)} videos that {listed} lists is there, "
            f"for example {local[0]}. Put the files there, or give their full addresses."
        )
    return sum(path.stat().st_size for path in found) + sum(
        source.size_bytes or 0 for source in sources if not is_relative(source.url)
    )


def check_models(recipe: Recipe | DataRecipe) -> None:
    """Look whether the language models that the data needs are there: weights, or an endpoint that answers.

    Nothing is asked where the recipe names none. Raises as ``check_model`` of ``longvila.curation.language``.
    The prompts that questions are to be written with are read too.
    """
    if recipe.data is None:
        return
    questions = recipe.data.questions
    sections = (recipe.data.captions, questions, getattr(questions, "checks", None))
    configs = [found for section in sections if (found := getattr(section, "model", None)) is not None]
    if not configs:
        return
    from longvila.curation.language.opening import check_model

    if questions.model is not None:
        from longvila.curation.asking.writer import load_prompts

        load_prompts(questions)
    for number, config in enumerate(configs):
        if config not in configs[:number]:
            check_model(config)


def check_heldout(recipe: Recipe) -> None:
    """Check that there are videos to evaluate on, where the recipe evaluates. Raises ``InputError``."""
    wanted = recipe.evaluation
    if recipe.data and (wanted.needle or wanted.frames_curve or wanted.qa):
        declared = read_source_list(recipe.data.sources)
        if not declared.may_hold_out:
            _need_split(source_list_path(recipe.data.sources), load_sources(recipe.data.sources), "heldout")


def _need_split(listed: Path, sources: Sequence[Source], split: Split) -> None:
    if not any(source.split == split for source in sources):
        raise InputError(
            f"The source list {listed} has no video of split {split!r}. Add one, or change a split."
        )


def _check_workspace(params: FlowParams, needed_bytes: int) -> None:
    """Open the workspace and look for so much free space."""
    from longvila.storage import Workspace

    # "s3" is a server that the flow itself starts below the workspace; other storages are looked at here.
    workspace = Workspace.open(params.workspace, None if params.storage == "s3" else params.storage)
    check_free_space(workspace.root, needed_bytes)


def workspace_folder(params: FlowParams) -> Path:
    """The workspace's folder as an absolute path."""
    return Path(params.workspace).expanduser().absolute()
