"""The tasks that caption, as the flow calls them, against a server on loopback."""

from __future__ import annotations

import pytest

from longvila.records import Caption
from tasks import curation
from tasks.refs import ManifestRef, WorkspaceRef, read_records, read_rejections
from tests.curation.language.footage import Footage, captions_config
from tests.curation.language.serving import ChatServer, Fault, completion


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Footage:
    return Footage.make(tmp_path_factory.mktemp("footage"), count=2)


def test_clips_and_videos_are_told_and_what_failed_is_in_the_manifest(footage):
    def say(body):
        told = isinstance(body["messages"][-1]["content"], str)
        return completion(
            "First a red yard is seen, then a blue one." if told else "A red yard, seen from above."
        )

    def refuse(got):
        return Fault(status=400, body={"error": "no"}) if "part 1 of" in " ".join(got.text.split()) else None

    place = WorkspaceRef(root=str(footage.root))
    videos, scans, clips = (
        ManifestRef(step=step, key=key)
        for step, key in (
            ("dedup", footage.videos_key), ("scan", footage.scans_key), ("clips", footage.clips_key)
        )
    )  # fmt: skip
    with ChatServer(say, fault_for=refuse) as server:
        plain = captions_config(server).model_dump()
        config = type(captions_config(server)).model_validate({**plain, "summary_prompt": "caption-video"})
        captions = curation.caption_clips.fn(place, videos, scans, clips, config)
        summaries = curation.summarise_videos.fn(place, videos, scans, captions, config)
    workspace = place.open()
    said = read_records(workspace, captions, Caption)
    lost = read_rejections(workspace, [captions])
    assert (captions.num_items, len(said), len(lost)) == (2, 6, 2)
    assert {rejected.source for rejected in lost} == {video.video_id for video in footage.videos}
    told = read_records(workspace, summaries, Caption)
    assert [(one.level, one.clip_id) for one in told] == [("video", "")] * 2
