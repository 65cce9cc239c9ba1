from __future__ import annotations

from pathlib import Path

import pytest

from longvila.config import load_recipe
from longvila.errors import InputError
from longvila.storage import Workspace
from longvila.storage.local import LocalStorage
from tasks.checkpoints import find_checkpoint, has_checkpoint, publish_checkpoint, remember_latest, start_of


def export(folder: Path, text: str = "{}") -> Path:
    (folder / "llm").mkdir(parents=True)
    (folder / "config.json").write_text(text)
    (folder / "llm" / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_checkpoint_is_found_by_name_by_folder_and_as_the_newest(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    folder = export(tmp_path / "runs" / "align-1" / "export")
    assert not has_checkpoint(workspace)
    publish_checkpoint(workspace, "align", folder)
    remember_latest(workspace, "align")
    for name in ("align", "", str(folder)):
        assert find_checkpoint(workspace, name).resolve() == folder
    assert has_checkpoint(workspace)


def test_a_newer_checkpoint_takes_the_name(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    publish_checkpoint(workspace, "align", export(tmp_path / "runs" / "a" / "export"))
    newer = export(tmp_path / "runs" / "b" / "export")
    publish_checkpoint(workspace, "align", newer)
    assert find_checkpoint(workspace, "align").resolve() == newer


def test_links_survive_moving_the_workspace(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "one")
    publish_checkpoint(workspace, "align", export(tmp_path / "one" / "runs" / "a" / "export"))
    (tmp_path / "one").rename(tmp_path / "two")
    assert (tmp_path / "two" / "checkpoints" / "align" / "config.json").is_file()


def test_missing_checkpoints_are_explained(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    with pytest.raises(InputError, match="No stage was trained"):
        find_checkpoint(workspace, "")
    publish_checkpoint(workspace, "align", export(tmp_path / "runs" / "a" / "export"))
    with pytest.raises(InputError, match=r"no checkpoint 'long_sft'.* align in"):
        find_checkpoint(workspace, "long_sft")


def test_remote_storage_gets_a_copy_with_config_last(tmp_path: Path) -> None:
    class Remote(LocalStorage):
        """A folder that pretends to be far away and remembers the order of writes."""

        def __init__(self, root: Path) -> None:
            super().__init__(root)
            self.written: list[str] = []

        def local_path(self, key: str) -> Path | None:
            return None

        def put_file(self, key: str, path: Path) -> None:
            self.written.append(key)
            super().put_file(key, path)

    remote = Remote(tmp_path / "bucket")
    workspace = Workspace(tmp_path / "ws", remote)
    publish_checkpoint(workspace, "align", export(tmp_path / "ws" / "runs" / "a" / "export"))
    assert remote.written == ["checkpoints/align/llm/model.safetensors", "checkpoints/align/config.json"]


def test_each_stage_starts_from_the_one_before() -> None:
    recipe = load_recipe("demo")
    assert [start_of(recipe, stage.name) for stage in recipe.stages] == [
        "start",
        "align",
        "pretrain",
        "short_sft",
        "extend_context",
    ]
