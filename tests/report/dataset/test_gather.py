from __future__ import annotations

import pytest

from longvila.errors import InputError
from longvila.records import Caption, Clip, VideoRecord
from longvila.report.dataset import BuildReport, gather_build
from longvila.report.dataset.choose import choose_videos
from longvila.report.dataset.funnel import without_secrets
from longvila.storage import Workspace
from tests.report.dataset.conftest import ABOUT
from tests.report.dataset.making import (
    caption_of,
    clips_of,
    make_build,
    rejection,
    video,
    write_step,
)


def bars(report: BuildReport, name: str) -> dict[str, int]:
    found = next(item for item in report.distributions if item.name == name)
    return {bar.value: bar.count for bar in found.bars}


def test_every_step_adds_up(report):
    rows = {step.step: (step.taken_in, step.kept, step.rejected) for step in report.funnel}
    assert rows == {
        "fetch": (6, 5, 1),
        "validate": (5, 4, 1),
        "scan": (4, 4, 0),
        "dedup": (4, 3, 1),
        "clips": (3, 3, 0),
        "captions": (3, 3, 0),
        "captions, clip by clip": (6, 6, 0),
        "questions": (3, 3, 0),
        "filter-questions": (12, 11, 1),
    }
    assert [check.passed for check in report.checks] == [True, True, True]


def test_an_item_that_was_lost_is_noticed(tmp_path):
    workspace = Workspace.open(tmp_path)
    outputs = make_build(workspace)
    lost = write_step(workspace, "clips", [(3, [*clips_of("v-a"), *clips_of("v-b")], [])], Clip)
    short = write_step(workspace, "validate", [(5, [video("v-a"), video("v-b")], [])], VideoRecord)
    steps = tuple({"clips": lost, "validate": short}.get(step.step, step) for step in outputs.steps)
    found = gather_build(workspace, outputs.model_copy(update={"steps": steps}), ABOUT)
    assert [check.passed for check in found.checks] == [False, False]
    wrong = [step.step for step in found.funnel if not step.adds_up]
    assert wrong == ["validate", "clips"]
    assert "2 leave validate, 4 enter scan" in found.checks[1].evidence


def test_parts_that_are_rejected_are_counted_as_parts(tmp_path):
    """A clip of v-a and the whole of v-b have no caption: one video is lost, and three clips of six."""
    workspace = Workspace.open(tmp_path)
    outputs = make_build(workspace)
    one = rejection("captions", "v-a-c1", "degenerate", "4.0–8.0 s: it repeats itself", source="v-a")
    whole = rejection("captions", "v-b", "no-frames", "its strip is empty")
    kept = [caption_of(clips_of("v-a")[0]), *map(caption_of, clips_of("v-c"))]
    kept.append(kept[0].model_copy(update={"level": "video", "clip_id": ""}))
    partly = write_step(workspace, "captions", [(3, kept, [one, whole])], Caption)
    steps = tuple(partly if step.step == "captions" else step for step in outputs.steps)
    found = gather_build(workspace, outputs.model_copy(update={"steps": steps}), ABOUT)
    rows = {step.step: step for step in found.funnel}
    captions, clips = rows["captions"], rows["captions, clip by clip"]
    assert (captions.taken_in, captions.kept, captions.rejected, captions.adds_up) == (3, 2, 1, True)
    assert (clips.taken_in, clips.kept, clips.rejected, clips.adds_up) == (6, 3, 3, True)
    assert {reason.reason: reason.count for reason in clips.reasons} == {"degenerate": 1, "no-frames": 2}
    assert [clip.start_s for clip in found.sheets[0].clips] == [0.0]


def test_distributions_count_what_was_made(report):
    assert bars(report, "Video length") == {"< 16 s": 3}
    assert bars(report, "Resolution") == {"640 × 360": 3}
    assert bars(report, "How shots begin") == {"start": 3, "dissolve": 3}
    assert bars(report, "Shot length") == {"4–8 s": 6}
    assert bars(report, "Clip length") == {"4–8 s": 6}
    # v-a-q0 is rejected: of the choice questions all six are left
    assert bars(report, "Place of the right option") == {"1 of 3": 3, "3 of 3": 3}
    # evidence [1, 3) and [2, 5) together are 4 s of 8
    assert bars(report, "Evidence length") == {"4–8 s": 11}
    assert bars(report, "Evidence as a share of what is shown") == {"0.5–0.6": 11}


def test_kinds_by_split_and_form(report):
    rows = {
        row.kind: (row.train_open, row.train_choice, row.heldout_open, row.heldout_choice)
        for row in report.kinds
    }
    assert rows == {"counting": (1, 2, 1, 1), "spatial": (2, 2, 1, 1)}
    spatial = report.kinds[1]
    assert {bar.value: bar.count for bar in spatial.commonest} == {"left side": 3, "blue": 3}


def test_costs_are_summed_over_batches_and_rejected_questions(report):
    stages = {stage.step: stage for stage in report.stages}
    assert (stages["fetch"].wall_s, stages["fetch"].cpu_s, stages["fetch"].num_items) == (4.0, 2.0, 6)
    assert stages["fetch"].items_per_s == 1.5
    assert (stages["captions"].tokens_in, stages["captions"].cost_usd) == (600, 1.5)
    assert (stages["questions"].tokens_in, stages["questions"].cost_usd) == (84, 6.0)
    assert stages["filter-questions"].tokens_in == 0


def test_a_duplicate_is_shown_beside_what_it_is_in(report):
    (twin,) = report.duplicates
    assert (twin.source, twin.kept, twin.reason) == ("source-v-d", "source-v-a", "near-duplicate")
    assert twin.picture is not None
    assert twin.kept_picture is not None
    assert twin.picture.data == twin.kept_picture.data  # the same scene, found in both


def test_examples_have_each_kind_split_and_form_with_pictures_of_the_evidence(report):
    groups = [(example.kind, example.split, example.form) for example in report.examples]
    assert len(set(groups)) == 8
    first = report.examples[0]
    assert [picture.alt for picture in first.pictures] == ["frame at 2 s", "frame at 3 s"]
    assert all((example.options == ()) == (example.form == "open") for example in report.examples)


def test_sheets_mark_shots_and_clips(report):
    assert [sheet.split for sheet in report.sheets] == ["train", "train", "heldout"]
    sheet = report.sheets[0]
    assert [(part.start, part.width, part.transition) for part in sheet.segments] == [
        (0.0, 50.0, "start"),
        (50.0, 50.0, "dissolve"),
    ]
    second = sheet.clips[1]
    assert (second.start_s, second.num_shots) == (4.0, 1)
    assert second.shots[0].begins_here
    assert second.shots[0].picture is not None


def test_passwords_and_signatures_are_left_out(report):
    gone = next(item for item in report.rejections if item.reason == "gone")
    assert gone.detail == "https://host/f.mp4?… nothing there (404)"
    assert without_secrets("s3://key:pw@b/x?a=1 and http://h/y") == "s3://b/x?… and http://h/y"
    assert without_secrets("why? because: a/b@c") == "why? because: a/b@c"


def test_a_video_is_named_by_its_source(report):
    balanced = next(item for item in report.rejections if item.step == "filter-questions")
    assert balanced.source == "source-v-a"


def test_a_scan_that_is_gone_costs_only_its_pictures(tmp_path):
    workspace = Workspace.open(tmp_path)
    outputs = make_build(workspace)
    for key in workspace.storage.list("scans/"):
        workspace.storage.delete(key)
    found = gather_build(workspace, outputs, ABOUT)
    assert all(not example.pictures for example in found.examples)
    assert found.duplicates[0].picture is None
    assert found.checks[0].passed


def test_a_missing_manifest_is_named(tmp_path):
    workspace = Workspace.open(tmp_path)
    outputs = make_build(workspace)
    workspace.storage.delete(outputs.step("clips").batches[0].key)
    with pytest.raises(InputError, match="clips/batch0"):
        gather_build(workspace, outputs, ABOUT)


def test_a_build_without_any_question_still_has_a_page(tmp_path):
    workspace = Workspace.open(tmp_path)
    outputs = make_build(workspace)
    steps = tuple(step for step in outputs.steps if "questions" not in step.step)
    found = gather_build(workspace, outputs.model_copy(update={"steps": steps, "datasets": {}}), ABOUT)
    assert (found.kinds, found.examples, found.shard_sets) == ((), (), ())


def test_both_splits_are_shown_and_a_new_video_changes_no_other():
    videos = [video(f"t{i}", split="train") for i in range(50)] + [video("h", split="heldout")]
    chosen = choose_videos(videos, 6)
    assert "h" in {one.video_id for one in chosen}
    again = choose_videos([*videos, video("t50", split="train")], 6)
    assert len({one.video_id for one in chosen} & {one.video_id for one in again}) >= 5
