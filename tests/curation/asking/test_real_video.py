"""Both writers on a build of real video: what is measured, and what comes over a real connection."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from longvila.config.language import QuestionConfig
from longvila.curation import build
from longvila.curation.asking.checks import rejection_of
from longvila.curation.asking.measured import WRITERS
from longvila.curation.asking.options import option_reports
from longvila.curation.filters import filter_questions
from longvila.storage import Workspace
from tests.curation.asking.scripted import purpose
from tests.curation.build_once import Built
from tests.curation.language.serving import ChatServer, Fault, completion, text_of


def test_measured_questions_about_clips_of_real_video(built: Built) -> None:
    kinds = (*WRITERS, "brightness", "main_colour", "motion")
    config = QuestionConfig.model_validate(
        {"kinds": kinds, "forms": ("open", "choice"), "summaries": True, "window_s": (4.0,), "stride_s": 1.0}
    )
    videos, scans = built.deduped.results, built.scanned.results
    written = build.question_batch(built.workspace, videos, scans, built.captions.results, config)
    assert {r.reason for r in written.rejections} <= {"empty"}
    kept = build.filter_all(built.workspace, videos, written.results)
    assert len(kept.results) + len(kept.rejections) == len(written.results)
    found = Counter(question.kind for question in kept.results)
    assert {"localisation", "cross_clip", "summary", "brightness"} <= set(found), found
    forms = Counter(question.form for question in kept.results if question.kind != "summary")
    assert min(forms["open"], forms["choice"]) > 20
    for report in option_reports(kept.results):
        for letter, count in report.positions.items():  # of 2, 3 and 4 options, each within one
            assert abs(count - report.expected[letter]) <= 3
    made = list(build.question_samples(built.workspace, videos, scans, kept.results, split="train"))
    assert {len(frames.offsets) - 1 for _, frames in made} == {sample.num_frames for sample, _ in made}


def said(body: dict[str, Any]) -> dict[str, Any]:
    """Answer as a model that reads the captions it is shown and quotes the first."""
    text = text_of(body["messages"][-1])
    what = purpose(text)
    if what == "check-blind":
        return completion(json.dumps({"answer": "an answer nobody gave"}))
    if what == "check-same":
        return completion(json.dumps({"same": "picture" in text.split("<second>")[1]}))
    shown = text.split("<captions>\n")[1].split("\n</captions>")[0].split("\n")
    number, _, quoted = shown[0].partition("] ")
    picture = quoted.split(" ", 1)[1].split(";")[0].rstrip(".")
    if what == "check-answer":
        return completion(json.dumps({"answerable": True, "answer": f"It is {picture.lower()}"}))
    item = {
        "question": "What does the picture look like at the very beginning?",
        "answer": picture,
        "distractors": [f"{picture} and {colour}" for colour in ("pink", "purple", "gold")],
        "evidence": [int(number[1:])],
    }
    return completion("Here you are:\n```json\n" + json.dumps({"questions": [item]}) + "\n```")


@pytest.mark.parametrize("faulty", [False, True])
def test_questions_over_a_real_connection(built: Built, tmp_path: Path, faulty: bool) -> None:
    """The same set comes of it with too many requests, broken connections and bad JSON on the way."""
    faults = (
        [Fault(status=429, headers={"Retry-After": "0"}), Fault(drop=True), Fault(status=503)]
        if faulty
        else []
    )
    videos = built.deduped.results[:2]
    ids = {video.video_id for video in videos}
    captions = [caption for caption in built.captions.results if caption.video_id in ids]
    with ChatServer(said, faults=list(faults)) as server:
        model = {
            "base_url": server.url,
            "model": "tiny",
            "backoff_s": 0.01,
            "usd_per_million_tokens_in": 100.0,
        }
        config = QuestionConfig.model_validate(
            {"writer": "model", "model": model, "kinds": ("attribute",), "forms": ("choice",)}
        )
        workspace = Workspace.open(tmp_path)
        scans = [scan for scan in built.scanned.results if scan.video_id in ids]
        result = build.question_batch(workspace, videos, scans, captions, config)
        assert [rejection_of(question) for question in result.results] == [None, None]
        assert len(server.got) - len(server.answered) >= len(faults) - 1
        cost = sum(question.usage.cost_usd for question in result.results)
        assert cost == pytest.approx(len(server.answered) * 10 * 100 / 1e6)
    kept, rejections = filter_questions(
        result.results, {video.video_id: video.duration_s for video in videos}
    )
    assert rejections == []
    for question in kept:
        (span,) = question.evidence
        (caption,) = [caption for caption in captions if caption.clip_id == span.clip_id]
        assert (span.start_s, span.stop_s) == (caption.start_s, caption.stop_s)
        assert question.answer in caption.text
        assert (question.model, len(question.options)) == ("tiny", 4)
