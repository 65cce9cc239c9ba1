"""Where exported checkpoints are found by name: ``checkpoints/NAME`` of the workspace."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from longvila.config.recipe import Recipe
from longvila.errors import InputError
from longvila.storage import Workspace, write_text

logger = logging.getLogger(__name__)
LATEST = "latest.json"


def publish_checkpoint(workspace: Workspace, name: str, export: Path) -> str:
    """Give an exported checkpoint its name in the workspace; return where it lies.

    ``root/checkpoints/NAME`` becomes a link to it; on remote storage a copy is put beside the shards as well.
    """
    folder = workspace.root / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / name
    draft = folder / f".{name}.{os.getpid()}.link"
    draft.symlink_to(os.path.relpath(export, folder), target_is_directory=True)
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    draft.replace(link)
    if workspace.is_remote:
        _upload(workspace, name, export)
    return str(link)


def remember_latest(workspace: Workspace, name: str) -> None:
    """Write down which checkpoint is the newest; ``longvila eval`` and the refresh flow look there."""
    write_text(workspace.root / "checkpoints" / LATEST, json.dumps({"name": name}))


def find_checkpoint(workspace: Workspace, name_or_path: str) -> Path:
    """A checkpoint by its folder, by its name in the workspace, or the newest for an empty name."""
    known = workspace.root / "checkpoints"
    if not name_or_path:
        try:
            name_or_path = json.loads((known / LATEST).read_text())["name"]
        except FileNotFoundError:
            raise InputError(
                f"No stage was trained in {workspace.root} yet. Train one, or name a checkpoint's folder."
            ) from None
    for candidate in (known / name_or_path, Path(name_or_path).expanduser()):
        if (candidate / "config.json").is_file():
            return candidate.absolute()
    names = sorted(path.name for path in known.glob("*") if path.is_dir())
    raise InputError(
        f"There is no checkpoint {name_or_path!r}: neither a folder with a config.json nor one of "
        f"{', '.join(names) or 'none yet'} in {known}."
    )


def start_of(recipe: Recipe, stage: str) -> str:
    """The name of the checkpoint that a stage starts from: the stage before, or ``start``."""
    names = [item.name for item in recipe.stages]
    position = names.index(recipe.stage(stage).name)
    return names[position - 1] if position else "start"


def _upload(workspace: Workspace, name: str, export: Path) -> None:
    """Copy the files; config.json last, because its presence says that the rest is there."""
    files = [path for path in sorted(export.rglob("*")) if path.is_file()]
    for path in sorted(files, key=lambda path: path == export / "config.json"):
        key = f"checkpoints/{name}/{path.relative_to(export).as_posix()}"
        if not (
            workspace.storage.exists(key)
            and workspace.storage.size(key) == path.stat().st_size
            and path.suffix != ".json"
        ):
            workspace.storage.put_file(key, path)
    logger.info("copied checkpoint %s to %s", name, workspace.url(f"checkpoints/{name}"))


def has_checkpoint(workspace: Workspace) -> bool:
    """Whether any stage was trained here."""
    return (workspace.root / "checkpoints" / LATEST).is_file()
