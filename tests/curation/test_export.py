from __future__ import annotations

from pathlib import Path

import pytest

from longvila.curation.export import export_clips
from longvila.errors import InputError
from longvila.media.decode import iterate_frames
from longvila.records import Clip, VideoRecord
from longvila.storage import Workspace
from tests.media.making import grey_ramp, number_of, write_video


def clip(index: int, start_s: float, stop_s: float, video_id: str = "v") -> Clip:
    return Clip(
        clip_id=f"c{index}", video_id=video_id, index=index, start_s=start_s, stop_s=stop_s, shot_ids=("s",)
    )


CLIPS = [clip(0, 0.0, 1.3), clip(1, 1.3, 2.6), clip(2, 2.6, 3.8)]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.open(tmp_path / "work")
    path = write_video(tmp_path / "a.mp4", grey_ramp(38), fps=10, options={"bf": "2"})
    workspace.storage.put_file("videos/v.mp4", path)
    return workspace


@pytest.fixture
def video() -> VideoRecord:
    return VideoRecord(
        video_id="v", source_id="a", url="u", key="videos/v.mp4", sha256="00" * 32, size_bytes=1,
        container="mp4", codec="h264", width=64, height=48, fps=10.0, num_frames=38,
        duration_s=3.8, split="train",
    )  # fmt: skip


def numbers(workspace: Workspace, key: str) -> list[int]:
    return [number_of(frame) for _, frame in iterate_frames(workspace.fetch_local(key))]


def test_clips_hold_each_frame_once(workspace, video):
    result = export_clips(workspace, [video], CLIPS, prefix="out/clips", crf=8)
    assert [exported.key for exported in result.results] == [f"out/clips/c{i}.mp4" for i in range(3)]
    shown = [numbers(workspace, exported.key) for exported in result.results]
    assert shown == [list(range(13)), list(range(13, 26)), list(range(26, 38))]
    assert [exported.size_bytes for exported in result.results] == [
        workspace.storage.size(exported.key) for exported in result.results
    ]
    assert list(workspace.scratch("export").iterdir()) == []


def test_what_is_there_is_not_written_again(workspace, video):
    workspace.storage.put_bytes("clips/c1.mp4", b"kept")
    first = export_clips(workspace, [video], CLIPS)
    assert workspace.storage.get_bytes("clips/c1.mp4") == b"kept"
    assert not first.reused
    assert export_clips(workspace, [video], CLIPS).reused
    workspace.storage.delete("clips/c2.mp4")
    again = export_clips(workspace, [video], CLIPS)
    assert not again.reused
    assert numbers(workspace, "clips/c2.mp4") == list(range(26, 38))


def test_a_clip_that_cannot_be_cut_stops_no_other(workspace, video):
    workspace.storage.put_bytes("videos/bad.mp4", b"no video")
    bad = video.model_copy(update={"video_id": "bad", "key": "videos/bad.mp4"})
    clips = [clip(7, 0.0, 1.0, "bad"), clip(8, 0.0, 1.0, "unknown"), CLIPS[0]]
    result = export_clips(workspace, [video, bad], clips)
    assert [exported.clip_id for exported in result.results] == ["c0"]
    assert [(r.item_id, r.reason) for r in result.rejections] == [
        ("c7", "not-a-video"),
        ("c8", "video-missing"),
    ]


def test_a_prefix_is_a_plain_path(workspace, video):
    with pytest.raises(InputError, match="cannot be a storage key"):
        export_clips(workspace, [video], CLIPS, prefix="../elsewhere")


def test_the_task_reads_and_writes_manifests(workspace, video):
    from tasks.curation import export_clips as task
    from tasks.refs import WorkspaceRef, write_batches

    reference = WorkspaceRef(root=str(workspace.root))
    (videos,) = write_batches(workspace, "videos", [video], VideoRecord, size=9)
    (clips,) = write_batches(workspace, "clips", CLIPS, Clip, size=9)
    made = task.fn(reference, videos, clips, prefix="cut", crf=30)
    assert (made.num_items, made.num_results, made.num_rejections) == (3, 3, 0)
    assert numbers(workspace, "cut/c0.mp4") == list(range(13))
