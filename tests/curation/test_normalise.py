"""From fetched files to videos that can be used, as a build does it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from longvila.config.sourcing import NormaliseConfig, ValidateConfig
from longvila.curation import build
from longvila.curation.fetching.fetch import FetchedVideo
from longvila.curation.normalise import bring_in
from longvila.errors import ItemError
from longvila.media.guard import Guard
from longvila.media.probe import probe
from longvila.records import VideoRecord
from longvila.storage import StepResult, Workspace
from tests.media.making import ffmpeg, grey_ramp, write_video

LIMITS = ValidateConfig(min_duration_s=0.5)


def fetched(workspace: Workspace, path: Path, name: str | None = None) -> FetchedVideo:
    """Store a file as the fetch does."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    key = f"videos/{sha256[:2]}/{sha256}{path.suffix}"
    workspace.storage.put_file(key, path)
    size_bytes = path.stat().st_size
    return FetchedVideo(
        source_id=name or path.name, key=key, url="u", sha256=sha256, size_bytes=size_bytes, split="train"
    )


def run(workspace: Workspace, *items: FetchedVideo, **normalise: object) -> StepResult[VideoRecord]:
    settings = NormaliseConfig.model_validate({"preset": "ultrafast", **normalise})
    return build.validate_batch(workspace, items, LIMITS, settings)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "work")


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    plain, path = write_video(tmp_path / "plain.mp4", grey_ramp(10)), tmp_path / "turned.mov"
    ffmpeg("-display_rotation", "-90", "-i", plain, "-c", "copy", path)
    return path


def test_what_needs_it_is_encoded_anew_and_keeps_its_id(workspace, tmp_path, turned):
    good = fetched(workspace, write_video(tmp_path / "good.mp4", grey_ramp(10, step=7)))
    odd = fetched(workspace, turned)
    first, second = run(workspace, good, odd).results
    assert (first.key, first.normalised_from, first.sha256) == (good.key, None, good.sha256)
    assert (second.video_id, second.normalised_from) == (odd.sha256[:16], odd.sha256)
    assert second.key == f"videos/{second.sha256[:2]}/{second.sha256}.mp4"
    path = workspace.fetch_local(second.key)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == second.sha256
    assert path.stat().st_size == second.size_bytes
    facts = probe(path)
    assert (facts.width, facts.height, facts.rotation) == (second.width, second.height, 0) == (48, 64, 0)
    assert list(workspace.scratch("normalise").iterdir()) == []


def test_never_and_always(workspace, tmp_path, turned):
    odd = fetched(workspace, turned)
    (kept,) = run(workspace, odd, when="never").results
    assert (kept.key, kept.normalised_from) == (odd.key, None)
    good = fetched(workspace, write_video(tmp_path / "good.mp4", grey_ramp(10)))
    (made,) = run(workspace, good, when="always").results
    assert made.normalised_from == good.sha256


def test_a_lost_encoding_is_made_again_with_the_same_bytes(workspace, turned):
    item = fetched(workspace, turned)
    (before,) = run(workspace, item).results
    workspace.storage.delete(before.key)
    again = run(workspace, item)
    assert not again.reused
    assert again.results == [before]
    assert workspace.storage.exists(before.key)
    assert run(workspace, item).reused


def test_one_bad_file_stops_nothing(workspace, tmp_path, turned):
    (tmp_path / "page.mp4").write_text("<!doctype html><title>404</title>")
    path = write_video(tmp_path / "cut.mpg", grey_ramp(38), codec="mpeg2video", fps=25)
    path.write_bytes(path.read_bytes()[:-700])  # within its last picture
    result = run(
        workspace,
        fetched(workspace, tmp_path / "page.mp4"),
        fetched(workspace, path),
        fetched(workspace, turned),
    )
    assert [video.source_id for video in result.results] == ["turned.mov"]
    assert [(r.item_id, r.reason) for r in result.rejections] == [
        ("page.mp4", "not-a-video"),
        ("cut.mpg", "damaged"),
    ]
    assert result.rejections[0].detail.startswith("page.mp4 is a web page")
    assert list(workspace.scratch("normalise").iterdir()) == []


def test_a_broken_source_name_is_a_rejection(workspace, tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    path = write_video(tmp_path / "plain.mp4", grey_ramp(10))
    with Guard(timeout_s=60, memory_bytes=2**32) as guard, pytest.raises(ItemError) as caught:
        bring_in(fetched(workspace, path, name), workspace, LIMITS, NormaliseConfig(), guard=guard)
    assert caught.value.reason == "bad-name"
