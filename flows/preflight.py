"""What can be checked before anything starts: the recipe, the sources, the workspace, the disk."""

from __future__ import annotations

from pathlib import Path

from flows.params import FlowParams
from longvila.config.recipe import Recipe
from longvila.config.sources import is_relative, load_sources, source_list_path
from longvila.errors import InputError
from longvila.planning.disk import check_free_space, estimate_bytes


def check_before_start(params: FlowParams) -> Recipe:
    """Return the recipe when the run can start.

    Raises ``ConfigError`` or ``InputError`` for the recipe and its sources, ``MachineError`` for a workspace
    that cannot be written or a disk too small for what the recipe needs.
    """
    from longvila.storage import Workspace

    recipe = params.load_recipe()
    source_bytes = check_sources(recipe)
    # "s3" is a server that the flow itself starts below the workspace; other storages are looked at here.
    workspace = Workspace.open(params.workspace, None if params.storage == "s3" else params.storage)
    check_free_space(workspace.root, estimate_bytes(recipe, source_bytes=source_bytes))
    return recipe


def check_sources(recipe: Recipe) -> int:
    """Check that the source list can be read; return the bytes of the sources that lie beside it."""
    if recipe.data is None:
        return 0
    folder = source_list_path(recipe.data.sources).parent
    sources = load_sources(recipe.data.sources)
    local = [folder / source.url for source in sources if is_relative(source.url)]
    found = [path for path in local if path.is_file()]
    if local and not found:
        raise InputError(
            f"None of the {len(local)} videos that {folder / 'sources.yaml'} lists is there, "
            f"for example {local[0]}. Put the files there, or give their full addresses."
        )
    return sum(path.stat().st_size for path in found) + sum(
        source.size_bytes or 0 for source in sources if not is_relative(source.url)
    )


def workspace_folder(params: FlowParams) -> Path:
    """The workspace's folder as an absolute path."""
    return Path(params.workspace).expanduser().absolute()
