from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from longvila.curation import build, report, scan
from longvila.curation.measure import Span, brightness
from longvila.data.shards import SampleWithFrames, write_dataset
from longvila.data.verify import verify_dataset
from longvila.media.decode import decode_frames
from longvila.media.jpeg import unpack_frames
from longvila.records import Source
from longvila.storage import Workspace
from longvila.text.tokenizer import FRAMES_MARK
from tests.curation.build_once import FETCH, FRAMES, QUESTIONS, Built
from tests.curation.faulty import FaultyServer, answer


def reasons(built: Built) -> dict[str, str]:
    return {
        rejection.source or rejection.item_id: rejection.reason
        for step in (built.fetched, built.validated, built.scanned, built.deduped)
        for rejection in step.rejections
    }


def test_what_was_planted_is_found_and_nothing_else(built):
    assert reasons(built) == {
        "12-lost": "gone",
        "11-cut-short": "truncated",
        "10-meadow-again": "near-duplicate",
    }
    assert "03-meadow" in built.deduped.rejections[0].detail
    assert sorted(video.source_id for video in built.deduped.results) == [
        "03-meadow",
        "05-workshop",
        "09-lesson",
    ]


def test_every_step_adds_up(built):
    entered = len(built.sources)
    for name, step in zip(("fetch", "validate", "scan", "dedup"), built.steps(), strict=False):
        row = report.funnel_row(name, entered=entered, result=step)
        assert row.entered == row.passed + row.rejected
        assert row.passed == len(step.results)
        entered = len(step.results)
    row = report.funnel_row("filter", entered=len(built.written.results), result=built.kept)
    assert row.entered == row.passed + row.rejected
    assert row.reasons.keys() == {"balance"}


def test_the_splits_share_no_picture(built):
    assert built.splits.shared == ()
    assert built.splits.nearest_distance is not None
    assert built.splits.nearest_distance > built.splits.max_distance
    assert built.splits.num_heldout_pictures > 100


def test_the_cuts_are_those_of_the_film(built):
    found = {video.source_id: video.video_id for video in built.deduped.results}
    starts = {
        name: [shot.start_s for shot in build.shots_of(built.deduped.results, built.scanned.results)
               if shot.video_id == video_id]
        for name, video_id in found.items()
    }  # fmt: skip
    # Looked at, frame by frame.
    expected = [0, 1.458, 8.708, 9.958, 11.625, 13.292, 14.958, 16.625, 17.458, 19.125, 20.792, 22.458,
                24.125, 28.292, 33.917, 35.875, 37.667, 39.333]  # fmt: skip
    np.testing.assert_allclose(starts["05-workshop"], expected, atol=0.001)


def test_a_second_run_does_nothing(built):
    again = Built.make(built.workspace, built.sources)
    assert all(step.reused for step in again.steps())
    assert [step.results for step in again.steps()] == [step.results for step in built.steps()]


def test_a_changed_setting_redoes_only_what_it_touches(built):
    again = Built.make(
        built.workspace, built.sources, questions=QUESTIONS.model_copy(update={"stride_s": 4.0})
    )
    assert [step.reused for step in again.steps()] == [True] * 6 + [False] * 2


def test_a_lost_scan_is_made_again(built):
    victim = min(built.scanned.results, key=lambda found: found.duration_s)
    data = built.workspace.storage.get_bytes(victim.key)
    built.workspace.storage.delete(victim.key)
    again = Built.make(built.workspace, built.sources)
    assert not again.scanned.reused
    assert again.scanned.results == built.scanned.results
    assert built.workspace.storage.get_bytes(victim.key) == data


def test_the_frames_of_the_scan_are_those_of_the_video(built):
    video = built.deduped.results[0]
    found = next(found for found in built.scanned.results if found.video_id == video.video_id)
    strip = scan.load_strip(built.workspace, found)
    assert found.num_frames == strip.blob.num_frames == len(strip.times_s)
    chosen = [0, 7, found.num_frames - 1]
    path = built.workspace.fetch_local(video.key)
    truth = decode_frames(path, strip.times_s[chosen], size=FRAMES.size)
    frames = unpack_frames(strip.blob.data, strip.blob.offsets, chosen)
    assert np.abs(frames.astype(int) - truth).mean() < 6
    part = strip.part(7, 9)
    np.testing.assert_array_equal(unpack_frames(part.data, part.offsets, [0]), frames[1:2])


def test_questions_are_true_balanced_and_of_many_kinds(built):
    kept = built.kept.results
    kinds = Counter(question.kind for question in kept if question.split == "train")
    assert {"brightness", "main_colour", "colour_place", "change", "motion", "count", "when_darkest"} <= set(
        kinds
    )
    scans = {found.video_id: scan.load_measures(built.workspace, found) for found in built.scanned.results}
    for question in kept:
        if question.kind == "brightness":
            span = Span(scans[question.video_id], question.start_s, question.stop_s, ())
            assert brightness(span) == question.answer
            assert all(e.clip_id for e in question.evidence)
    answers = Counter(
        q.answer for q in kept if q.question == "how strong is the motion" and q.split == "train"
    )
    assert max(answers.values()) <= 0.5 * sum(answers.values())


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_samples_go_into_shards(built, tmp_path, split):
    made = list(
        build.question_samples(
            built.workspace, built.deduped.results, built.scanned.results, built.kept.results, split=split
        )
    )
    ids = [q["question_id"] for sample, _ in made for q in sample.provenance["questions"]]
    assert sorted(ids) == sorted(q.question_id for q in built.kept.results if q.split == split)
    for sample, frames in made:
        assert sample.split == split
        assert sample.num_frames == frames.num_frames
        assert sample.conversations[0].text.startswith(f"{FRAMES_MARK} ")
        assert all(FRAMES_MARK not in turn.text for turn in sample.conversations[1:])
        if split == "heldout":
            assert len(sample.conversations) == 2
    assert len({sample.key for sample, _ in made}) == len(made)
    samples = [SampleWithFrames(sample, frames) for sample, frames in made[:20]]
    write_dataset(built.workspace.storage, f"questions-{split}", split, samples, target_bytes=1 << 20)
    assert verify_dataset(built.workspace.storage, f"questions-{split}").ok


def test_report_data(built):
    found = next(f for f in built.scanned.results if f.video_id == built.captions.results[0].video_id)
    captions = [c for c in built.captions.results if c.video_id == found.video_id]
    sheet = report.contact_sheet(scan.load_thumbs(built.workspace, found), captions, limit=5)
    assert 1 <= len(sheet) <= 5
    for picture in sheet:
        assert picture.jpeg.startswith(b"\xff\xd8")
        assert picture.start_s - 1 <= picture.time_s <= picture.stop_s
        assert picture.text
    shots = build.shots_of(built.deduped.results, built.scanned.results)
    tables = {table.name: table.counts for table in report.distributions(shots, built.kept.results)}
    assert sum(tables["shot length"].values()) == len(shots)
    assert sum(tables["questions, train"].values()) + sum(tables["questions, heldout"].values()) == len(
        built.kept.results
    )


def test_what_was_unreachable_is_tried_again(tmp_path):
    workspace = Workspace.open(tmp_path / "workspace")
    body = b"anything"
    config = FETCH.model_copy(update={"attempts": 1})
    with FaultyServer({"/a.mp4": [answer(503), answer(200, body)], "/b.mp4": [answer(404)]}) as server:
        sources = [Source(source_id=name, url=f"{server.url}/{name}.mp4") for name in ("a", "b")]
        first = build.fetch_batch(workspace, sources, config)
        assert sorted(r.reason for r in first.rejections) == ["gone", "unreachable"]
        second = build.fetch_batch(workspace, sources, config)
        third = build.fetch_batch(workspace, sources, config)
    assert [found.source_id for found in second.results] == ["a"]
    assert third.reused
    assert [path for path, _ in server.requests].count("/b.mp4") == 1
