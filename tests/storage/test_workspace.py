from __future__ import annotations

import os
from pathlib import Path

import pytest

from longvila.errors import InputError, MachineError
from longvila.storage import Workspace


def test_a_new_workspace_is_made(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "a" / "b")
    workspace.storage.put_bytes("videos/x.mp4", b"1")
    assert workspace.root.is_dir()
    assert not workspace.is_remote
    assert workspace.fetch_local("videos/x.mp4") == workspace.root / "videos" / "x.mp4"
    assert workspace.scratch("cuts").is_dir()
    assert workspace.run_dir("align").is_dir()
    assert workspace.url("shards/demo") == f"{workspace.root}/shards/demo"


def test_storage_can_be_another_folder(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "ws", str(tmp_path / "big-disk"))
    workspace.storage.put_bytes("x", b"1")
    assert (tmp_path / "big-disk" / "x").is_file()
    assert Workspace.open(tmp_path / "ws", "local").storage.url == str(tmp_path / "ws")


def test_a_file_cannot_be_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match=r"is a file\. Give a folder"):
        Workspace.open(tmp_path / "x")
    with pytest.raises(InputError, match="A file stands where a folder is needed"):
        Workspace.open(tmp_path / "x" / "y")


def test_a_folder_without_rights_is_told(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(MachineError, match="No permission"):
            Workspace.open(tmp_path / "locked" / "ws")
    finally:
        os.seteuid(user)


def test_missing_objects_and_bad_names_are_told(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    with pytest.raises(InputError, match="Check the workspace"):
        workspace.fetch_local("videos/none.mp4")
    with pytest.raises(InputError, match="leaves the workspace"):
        workspace.scratch("../../x")
