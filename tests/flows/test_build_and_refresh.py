from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from flows.params import BuildParams, RefreshParams
from flows.state import recall_dataset
from longvila.data import open_reader
from longvila.errors import InputError, TooManyRejections
from longvila.records import VideoRecord
from tasks.refs import WorkspaceRef, read_records, read_rejections
from tests.flows.conftest import write_recipe, write_sources

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One workspace that the tests below carry on, each from where the one before left it."""
    return tmp_path_factory.mktemp("refresh")


def params_of(folder: Path) -> dict[str, str]:
    return {"recipe": str(folder / "small.yaml"), "workspace": str(folder / "ws")}


def scanned(folder: Path) -> int:
    """How many videos were ever decoded in the workspace."""
    with sqlite3.connect(folder / "ws" / "ledger.sqlite") as ledger:
        return ledger.execute("SELECT count(*) FROM items WHERE step LIKE 'scan/%'").fetchone()[0]


def test_build_makes_verified_shards(folder: Path) -> None:
    from flows.build_dataset import build_dataset

    write_recipe(folder, write_sources(folder, ["09-lesson", "05-workshop"]))
    result = build_dataset(BuildParams(**params_of(folder)))
    assert set(result.datasets) == {
        "questions",
        "frame-captions",
        "needles-short",
        "needles-long",
        "recall-short",
        "recall-long",
    }
    for step in result.steps:
        assert step.num_items - step.num_rejections >= 0
    train = open_reader(result.datasets["questions"], split="train")
    assert {train.sample(i).provenance["source_id"] for i in range(len(train))} == {"09-lesson"}
    assert scanned(folder) == 2


def test_refresh_with_nothing_new_ends_as_skipped(folder: Path) -> None:
    from flows.refresh import refresh

    state = refresh(RefreshParams(**params_of(folder)), return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Skipped")
    assert state.result().new_sources == ()
    assert scanned(folder) == 2


def test_refresh_with_one_new_video_builds_only_that(folder: Path) -> None:
    from flows.refresh import refresh

    write_sources(folder, ["09-lesson", "05-workshop", "10-meadow-again"])
    before = recall_dataset(WorkspaceRef(root=str(folder / "ws")), "small")
    assert before is not None
    result = refresh(RefreshParams(**params_of(folder)))
    assert result.new_sources == ("10-meadow-again",)
    assert scanned(folder) == 3
    assert result.dataset is not None
    workspace = WorkspaceRef(root=str(folder / "ws")).open()
    kept = read_records(workspace, result.dataset.videos, VideoRecord)
    assert {video.source_id for video in kept} == {"09-lesson", "05-workshop", "10-meadow-again"}
    state = refresh(RefreshParams(**params_of(folder)), return_state=True)
    assert state.name == "Skipped"


def test_bad_sources_are_rejected_and_too_many_of_them_end_with_code_3(folder: Path) -> None:
    from flows.build_dataset import build_dataset

    listed = write_sources(folder, ["09-lesson", "05-workshop", "11-cut-short"])
    listed.write_text(listed.read_text() + "  - {source_id: nowhere, url: /nowhere/video.mp4}\n")
    strict = BuildParams(**params_of(folder), overrides=("data.max_rejected_share=0.4",))
    with pytest.raises(TooManyRejections, match="2 of 4 sources were rejected"):
        build_dataset(strict)
    built = recall_dataset(WorkspaceRef(root=str(folder / "ws")), "small")
    assert built is not None
    workspace = WorkspaceRef(root=str(folder / "ws")).open()
    reasons = {
        item.reason
        for item in read_rejections(workspace, built.rejections)
        if item.step != "filter-questions"
    }
    assert reasons == {"missing", "truncated"}
    build_dataset(BuildParams(**params_of(folder)))


def test_recipe_without_data_and_data_without_held_out_are_told(folder: Path) -> None:
    from flows.build_dataset import build_dataset
    from flows.evaluate import evaluate
    from flows.params import EvaluateParams

    with pytest.raises(InputError, match="No stage was trained"):
        evaluate(EvaluateParams(**params_of(folder)))
    write_sources(folder, ["05-workshop"])
    with pytest.raises(InputError, match=r"no video of split 'train'|no sample in split|No question is left"):
        build_dataset(BuildParams(**params_of(folder)))
