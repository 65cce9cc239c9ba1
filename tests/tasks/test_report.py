from __future__ import annotations

import json
from pathlib import Path

from longvila.config import load_recipe
from longvila.records import Rejection
from longvila.training import StageOutcome
from tasks.refs import ManifestRef
from tasks.report import _funnel_step
from tasks.summaries import MAX_LOSS_POINTS, read_losses, summary, tower_note


def test_losses_are_those_of_the_last_time_that_a_step_was_trained(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 9.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "loss": 1.0},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4, "lo')
    curve = read_losses("align", path)
    assert curve is not None
    assert (curve.steps, curve.losses) == ((1, 2, 3), (3.0, 2.0, 1.0))
    assert read_losses("align", tmp_path / "none") is None


def test_long_curves_are_thinned(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": i, "loss": 1.0}) + "\n" for i in range(10_000)))
    curve = read_losses("align", path)
    assert curve is not None
    assert len(curve.steps) <= MAX_LOSS_POINTS


def test_a_step_s_row_adds_up_and_has_an_example_of_each_reason() -> None:
    ref = ManifestRef(step="fetch", key="k", num_items=5, num_results=3, num_rejections=2)
    rejected = [
        Rejection(item_id=str(i), step="fetch", reason="gone", detail=f"nothing at {i}") for i in range(2)
    ]
    row = _funnel_step(ref, rejected)
    assert row.adds_up
    assert (row.unit, row.made) == ("sources", "3 files")
    assert [(reason.reason, reason.count, reason.example) for reason in row.reasons] == [
        ("gone", 2, "nothing at 0")
    ]


def test_a_stage_is_summed_up_as_it_was_spread() -> None:
    stage = load_recipe("demo").stage("extend_context")
    outcome = StageOutcome(
        stage=stage.name,
        run_dir="/nowhere",
        export_dir="/nowhere/export",
        fingerprint="f",
        step=100,
        loss=0.1,
        tokens=1,
        train_seconds=2.0,
        reused=False,
        attempts=3,
    )
    row = summary(stage, outcome)
    assert row.parallel == "dp 1 × ulysses 1 × ring 2, ZeRO 2"
    assert row.restarts == 2
    assert row.losses is None


def test_the_report_says_that_the_tower_was_not_pre_trained() -> None:
    assert "not one of the five stages" in tower_note(load_recipe("demo"))
    assert tower_note(load_recipe("longvila-7b")) == ""
