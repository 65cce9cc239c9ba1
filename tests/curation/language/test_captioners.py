from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from longvila.config.language import CaptionConfig
from longvila.curation import build
from longvila.curation.captioners import pick_frames
from longvila.curation.language.prompts import load_prompt
from longvila.curation.scan import load_strip
from longvila.errors import ConfigError, TransientError
from longvila.records import Usage
from tests.curation.language.footage import Footage, captions_config
from tests.curation.language.serving import ChatServer, Fault, Got, completion

SENTENCE = "Two red boxes stand on the left of a grey yard while a small cart rolls slowly to the right."


@pytest.fixture(scope="session")
def scanned(tmp_path_factory) -> Footage:
    return Footage.make(tmp_path_factory.mktemp("footage"), count=3)


@pytest.fixture
def footage(scanned, tmp_path) -> Footage:
    return scanned.copy(tmp_path / "workspace")


def say(body):
    """A sentence that tells which clip it is of."""
    return completion(f"{SENTENCE} {clip_mark(body)}")


def clip_mark(body) -> str:
    return body["messages"][-1]["content"][-1]["text"].split("taken at ")[1].split(".  ")[0][:40]


def pictures_of(got: Got) -> list[bytes]:
    content = got.body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return [base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) for url in urls]


def first_picture(body) -> str:
    return body["messages"][-1]["content"][0]["image_url"]["url"]


def test_each_clip_is_shown_by_frames_of_its_own_and_told_their_times(footage):
    with ChatServer(say) as server:
        made = footage.caption(captions_config(server, usd_per_million_tokens_out=2.0))
    assert not made.rejections
    assert [caption.clip_id for caption in made.results] == [clip.clip_id for clip in footage.clips]
    strips = {scan.video_id: load_strip(footage.open(), scan) for scan in footage.scans}
    asked = {tuple(pictures_of(got)): got for got in server.got}
    for clip, caption in zip(footage.clips, made.results, strict=True):
        strip = strips[clip.video_id]
        times_s = caption.facts["frame_times_s"]
        assert len(times_s) == 3
        assert clip.start_s <= min(times_s) < max(times_s) < clip.stop_s
        places = [int(abs(strip.times_s - time_s).argmin()) for time_s in times_s]
        frames = tuple(bytes(strip.part(place, place + 1).data) for place in places)
        assert ", ".join(f"{time_s:.1f} s" for time_s in times_s) in asked[frames].text
        assert (caption.model, caption.captioner, caption.outcome) == ("tiny", "model-1", "whole")
        assert caption.prompt_id == load_prompt("caption-clip").id
        assert caption.usage == Usage(tokens_in=10, tokens_out=5, cost_usd=10e-6)


def test_what_was_said_is_not_asked_again_and_a_changed_setting_is(footage):
    with ChatServer(say) as server:
        first = footage.caption(captions_config(server))
        assert footage.caption(captions_config(server, attempts=9, requests_at_once=1)).reused
        assert len(server.got) == len(first.results) == 12
        footage.caption(captions_config(server, revision="2"))
        assert len(server.got) == 24


def test_a_clip_that_fails_is_a_rejection_and_the_others_go_on(footage):
    clips = footage.clips
    strip = load_strip(footage.open(), footage.scans[0])
    shown = base64.b64encode(pick_frames(strip, clips[1], 3).jpegs[0]).decode()

    def refuse(got):
        return (
            Fault(status=400, body={"error": "no"}) if got.body and shown in first_picture(got.body) else None
        )

    with ChatServer(say, fault_for=refuse) as server:
        made = footage.caption(captions_config(server))
    (rejected,) = made.rejections
    assert (rejected.item_id, rejected.step, rejected.reason) == (clips[1].clip_id, "captions", "refused")
    assert rejected.source == clips[1].video_id
    assert f"{clips[1].start_s:.1f}–{clips[1].stop_s:.1f} s" in rejected.detail
    assert len(made.results) + len(made.rejections) == len(clips)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (completion(""), "degenerate"),
        (completion("!!!!!!!!!!!!!!!!"), "degenerate"),
        (completion("the cat and " * 40, finish="length"), "degenerate"),
        (completion("I'm sorry, but I can't assist with that."), "degenerate"),
        (completion("", finish="content_filter"), "blocked"),
    ],
)
def test_all_clips_rejected_still_add_up(footage, answer, reason):
    with ChatServer(lambda _: answer) as server:
        made = footage.caption(captions_config(server))
    assert not made.results
    assert [rejected.item_id for rejected in made.rejections] == [clip.clip_id for clip in footage.clips]
    assert {rejected.reason for rejected in made.rejections} == {reason}


def test_a_caption_that_was_cut_off_is_kept_and_marked(footage):
    with ChatServer(
        lambda body: {**say(body), "choices": [{**say(body)["choices"][0], "finish_reason": "length"}]}
    ) as server:
        made = footage.caption(captions_config(server))
    assert {caption.outcome for caption in made.results} == {"truncated"}


def test_a_prompt_with_a_schema_gives_facts(footage):
    answer = {
        "caption": SENTENCE, "objects": ["two red boxes, left"], "actions": [], "on_screen_text": ["EXIT"],
        "place": "a yard", "camera": "still",
    }  # fmt: skip
    with ChatServer(lambda _: completion(json.dumps(answer))) as server:
        made = footage.caption(captions_config(server, prompt="caption-clip-facts"))
    assert server.got[0].body["response_format"]["json_schema"]["strict"] is True
    assert made.results[0].text == SENTENCE
    assert made.results[0].facts["on_screen_text"] == ["EXIT"]
    assert "caption" not in made.results[0].facts


def test_an_endpoint_that_goes_down_in_the_middle_loses_and_repeats_nothing(footage):
    with ChatServer(say) as server:
        server.fault_for = lambda got: Fault(status=503) if len(server.answered) >= 5 else None
        with pytest.raises(TransientError):
            footage.caption(captions_config(server, requests_at_once=1, attempts=2))
        assert len(server.answered) == 5
    with ChatServer(say) as server:
        made = footage.caption(captions_config(server))
    assert len(made.results) == 12
    assert len(server.got) == 7


def test_a_clip_that_could_not_be_reached_is_tried_again_by_the_next_run(footage):
    def unlucky(got):
        return Fault(status=500) if got.body and "part 2 of" in " ".join(got.text.split()) else None

    with ChatServer(say, fault_for=unlucky) as server:
        made = footage.caption(captions_config(server, requests_at_once=2))
    assert [rejected.reason for rejected in made.rejections] == ["unreachable"] * 3
    with ChatServer(say) as server:
        again = footage.caption(captions_config(server))
    assert (len(again.results), len(again.rejections), len(server.got)) == (12, 0, 3)


def test_a_wrong_key_stops_the_step_with_its_mend(footage):
    with (
        ChatServer(fault_for=lambda _: Fault(status=401)) as server,
        pytest.raises(ConfigError, match="wants a key"),
    ):
        footage.caption(captions_config(server, requests_at_once=4))
    assert len(server.got) <= 4


def test_a_cost_limit_stops_the_step_and_a_higher_one_goes_on(footage):
    prices = {"usd_per_million_tokens_in": 1.0, "usd_per_million_tokens_out": 1000.0}
    with ChatServer(
        lambda body: {**say(body), "usage": {"prompt_tokens": 9, "completion_tokens": 400}}
    ) as server:
        with pytest.raises(ConfigError, match="raise the limit and start again"):
            footage.caption(captions_config(server, max_cost_usd=2.0, **prices))
        assert len(server.got) == 4  # 0.4 USD each, 0.513 at most
        made = footage.caption(captions_config(server, max_cost_usd=20.0, **prices))
    assert len(made.results) == 12
    assert len(server.got) == 12


def test_a_changed_prompt_is_another_prompt(footage, tmp_path):
    text = yaml.safe_load(Path("datasets/prompts/caption-clip.yaml").read_text())
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({**text, "user": "Tell what is at {{ times }}."}))
    with ChatServer(lambda _: completion(SENTENCE)) as server:
        first = footage.caption(captions_config(server))
        mine_said = footage.caption(captions_config(server, prompt=str(mine)))
    assert first.results[0].prompt_id != mine_said.results[0].prompt_id
    assert first.results[0].caption_id != mine_said.results[0].caption_id


def test_a_schema_without_a_caption_is_refused_at_once(footage, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("{name: mine, version: 1, purpose: x, user: Tell., answer: {type: object}}")
    with ChatServer() as server, pytest.raises(ConfigError, match="without a required field caption"):
        footage.caption(captions_config(server, prompt=str(mine)))
    assert not server.got


def test_chapters_and_the_whole_video_are_told_from_clips(footage):
    config = CaptionConfig.model_validate(
        {
            **captions_config("http://127.0.0.1:9/v1").model_dump(),
            "summary_prompt": "caption-video",
            "chapter_prompt": "caption-chapter",
            "chapter_s": 6.5,
        }
    )

    def tell(body):
        content = body["messages"][-1]["content"]
        return (
            say(body)
            if isinstance(content, list)
            else completion(f"It all happens in {len(content)} letters.")
        )

    with ChatServer(tell) as server:
        config = config.model_copy(update={"model": captions_config(server).model})
        said = footage.caption(config)
        told = build.summary_batch(footage.open(), footage.videos, footage.scans, said.results, config)
    levels = Counter((caption.video_id, caption.level) for caption in told.results)
    assert set(levels.values()) == {1, 2}
    video = next(caption for caption in told.results if caption.level == "video")
    chapters = [c for c in told.results if c.video_id == video.video_id and c.level == "chapter"]
    assert (video.start_s, video.stop_s) == (chapters[0].start_s, chapters[-1].stop_s)
    asked = next(got.text for got in server.got if "synopsis" in got.text and chapters[0].text in got.text)
    assert chapters[1].text in asked


def test_summaries_need_a_model():
    with pytest.raises(ValueError, match="need captioner: model"):
        CaptionConfig(summary_prompt="caption-video")


@pytest.mark.faults
def test_killed_in_the_middle_and_started_again_nothing_is_lost_or_asked_twice(footage):
    def slow(body):
        time.sleep(0.1)
        return say(body)

    with ChatServer(slow) as server:
        where = [str(footage.root), footage.videos_key, footage.scans_key, footage.clips_key]
        command = [sys.executable, "-m", "tests.curation.language.footage", server.url, *where]
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while len(server.answered) < 5:
            time.sleep(0.01)
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        before = len(server.answered)
        assert before < 12
        made = footage.caption(captions_config(server, requests_at_once=2))
    assert len(made.results) == 12
    times = Counter(json.dumps(got.body["messages"]) for got in server.got)
    assert len(times) == 12
    assert sum(times.values()) - 12 <= 2  # what was under way when it was killed
    assert [caption.clip_id for caption in made.results] == [clip.clip_id for clip in footage.clips]
