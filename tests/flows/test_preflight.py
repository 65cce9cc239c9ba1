from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from flows.params import BuildParams, FlowParams, LifecycleParams
from flows.preflight import check_before_start, check_build
from longvila.errors import ConfigError, InputError, MachineError, NetworkError, UserError

CLOSED = "http://127.0.0.1:9/v1"


def params(workspace: Path, **changed: object) -> LifecycleParams:
    return LifecycleParams.model_validate({"recipe": "demo", "workspace": str(workspace)} | changed)


def test_demo_can_start(tmp_path: Path) -> None:
    assert check_before_start(params(tmp_path / "new" / "ws")).name == "demo"


def test_wrong_override_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages.align.steps \(--set stages.align.steps\): 0 was given"):
        check_before_start(params(tmp_path, overrides=("stages.align.steps=0",)))


def test_empty_folder_of_sources_is_told(tmp_path: Path) -> None:
    listed = tmp_path / "sources.yaml"
    listed.write_text("sources:\n  - {url: videos/a.mp4}\n  - {url: videos/b.mp4}\n")
    with pytest.raises(InputError, match=r"None of the 2 videos .* is there, for example .*videos/a.mp4"):
        check_before_start(params(tmp_path / "ws", overrides=(f"data.sources={listed}",)))


def test_workspace_that_is_a_file_or_below_one_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="is a file"):
        check_before_start(params(file))
    with pytest.raises(UserError, match=r"Cannot write .*/file/below"):
        check_before_start(params(file / "below"))


def test_workspace_without_permission_is_told() -> None:
    # Nobody can make a folder here, root included.
    with pytest.raises(UserError, match="Cannot write /proc/longvila"):
        check_before_start(params(Path("/proc/longvila")))


def test_too_little_disk_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        total: int = 10**9
        used: int = 10**9
        free: int = 10**6

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage())
    with pytest.raises(MachineError, match=r"needs about .* Free some space"):
        check_before_start(params(tmp_path))


def test_unknown_storage_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown scheme 'gs'"):
        check_before_start(params(tmp_path, storage="gs://bucket"))


def test_the_source_list_is_named_as_it_is(tmp_path: Path) -> None:
    listed = tmp_path / "mine.yaml"
    listed.write_text("sources:\n  - {url: a.mp4}\n")
    with pytest.raises(InputError, match=r"None of the 1 videos that .*/mine\.yaml lists"):
        check_before_start(params(tmp_path / "ws", overrides=(f"data.sources={listed}",)))


def test_a_folder_without_a_source_list_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no sources\.yaml in the folder"):
        check_before_start(params(tmp_path / "ws", overrides=(f"data.sources={tmp_path}",)))


@pytest.mark.parametrize(
    "change",
    [
        "model.vision.pretrained=/nowhere/tower",
        "model.llm.pretrained=./nowhere",
        "model.tokenizer=~/nowhere",
        "stages.align.mixture=[{dataset: /nowhere/shards/mine}]",
    ],
)
def test_folders_that_a_recipe_names_are_looked_for_before_the_first_stage(
    tmp_path: Path, change: str
) -> None:
    with pytest.raises(InputError, match=rf"{change.partition('=')[0]} .*no folder .*nowhere"):
        check_before_start(params(tmp_path / "ws", overrides=(change,)))
    assert not (tmp_path / "ws" / "videos").exists()


@pytest.mark.parametrize(("given", "lacks"), [("train", "heldout"), ("heldout", "train")])
def test_a_life_needs_videos_to_train_on_and_to_be_measured_on(
    tmp_path: Path, given: str, lacks: str
) -> None:
    listed = tmp_path / "sources.yaml"
    listed.write_text(f"sources:\n  - {{url: https://example.org/a.mp4, split: {given}}}\n")
    change = (f"data.sources={listed}",)
    with pytest.raises(InputError, match=f"no video of split '{lacks}'"):
        check_before_start(params(tmp_path / "ws", overrides=change))
    if given == "train":
        build = BuildParams.model_validate(
            {"recipe": "demo", "workspace": str(tmp_path / "ws"), "overrides": change}
        )
        assert check_before_start(build).name == "demo"


def test_the_language_model_is_looked_for_before_anything_starts(tmp_path: Path) -> None:
    model = f"{{model: tiny, base_url: '{CLOSED}', connect_timeout_s: 1}}"
    changed = ("data.captions.captioner=model", f"data.captions.model={model}")
    with pytest.raises(NetworkError, match="Start the server"):
        check_build(BuildParams(recipe="demo", workspace=str(tmp_path), overrides=changed))
    with pytest.raises(NetworkError, match="Start the server"):
        check_before_start(params(tmp_path, overrides=changed))
    local = (changed[0], f"data.captions.model={{kind: local, model: {tmp_path}}}")
    with pytest.raises(InputError, match="Nothing is fetched from a hub"):
        check_build(BuildParams(recipe="demo", workspace=str(tmp_path), overrides=local))


def test_a_training_does_not_need_the_captioner(tmp_path: Path) -> None:
    model = f"{{model: tiny, base_url: '{CLOSED}'}}"
    changed = ("data.captions.captioner=model", f"data.captions.model={model}")
    wanted = FlowParams(recipe="demo", workspace=str(tmp_path), overrides=changed)
    assert check_before_start(wanted).name == "demo"
