from __future__ import annotations

from pathlib import Path

import pytest

from flows.build_dataset import protect
from flows.runners import batch_runner
from longvila.config.data import DataConfig, RunnerConfig
from longvila.config.sourcing import DedupConfig
from longvila.curation.duplicates.protected import EvaluationVideo
from longvila.errors import InputError
from tasks.refs import WorkspaceRef, read_records
from tests.media.making import DEMO, ffmpeg

pytestmark = pytest.mark.usefixtures("prefect_server")


def data_with(*lists: Path) -> DataConfig:
    return DataConfig(sources="demo", dedup=DedupConfig(evaluation_lists=tuple(map(str, lists))))


def test_evaluation_lists_are_read_and_their_videos_fingerprinted(tmp_path: Path) -> None:
    ffmpeg("-t", "4", "-i", DEMO / "08-flight.mp4", "-an", "-vf", "scale=160:-2", tmp_path / "asked.mp4")
    (tmp_path / "exam.yaml").write_text("sources: [{url: asked.mp4}, {url: lost.mp4}]")
    (tmp_path / "ids.txt").write_text("aaaaaaaaaaa\n")
    reference = WorkspaceRef(root=str(tmp_path / "ws"))
    with batch_runner(RunnerConfig(workers=1)) as runner:
        known = protect(runner, data_with(tmp_path / "exam.yaml", tmp_path / "ids.txt"), reference)
    workspace = reference.open()
    videos = read_records(workspace, known, EvaluationVideo)
    assert [(video.name, bool(video.key)) for video in videos] == [
        ("asked", False),
        ("lost", False),
        ("asked", True),
        ("aaaaaaaaaaa", False),
    ]
    assert workspace.storage.exists(videos[2].key)


def test_a_list_that_is_not_there_ends_the_build_before_it_begins(tmp_path: Path) -> None:
    reference = WorkspaceRef(root=str(tmp_path / "ws"))
    with batch_runner(RunnerConfig(workers=1)) as runner:
        with pytest.raises(InputError, match="does not exist"):
            protect(runner, data_with(tmp_path / "exam.txt"), reference)
        assert protect(runner, DataConfig(sources="demo"), reference) == []
