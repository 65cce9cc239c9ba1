from __future__ import annotations

from pathlib import Path

import pytest

from longvila.config.recipe import DataRecipe
from longvila.report.dataset import BuildOutputs
from longvila.storage import Workspace
from tasks.contents import BuiltDataset
from tasks.dataset_report import outputs_of, report_dataset
from tasks.refs import ManifestRef, WorkspaceRef
from tests.report.dataset.making import make_build

RECIPE = DataRecipe.model_validate({"name": "small", "data": {"sources": "demo"}})


def built(outputs: BuildOutputs) -> BuiltDataset:
    """What a flow would remember of the build."""
    refs = [
        ManifestRef(
            step=step.step,
            key=batch.key,
            num_items=batch.num_items,
            num_results=batch.num_results,
            num_rejections=batch.num_rejections,
        )
        for step in outputs.steps
        for batch in step.batches
    ]
    of = {ref.step: ref for ref in refs}
    return BuiltDataset(
        datasets=outputs.datasets,
        sources={},
        videos=of["dedup"],
        scans=(of["scan"],),
        captions=(of["captions"],),
        questions=of["filter-questions"],
        steps=tuple(of.values()),
        rejections=tuple(refs),
        duplicates=ManifestRef(step="duplicates", key=outputs.duplicates),
    )


@pytest.fixture
def small(tmp_path: Path) -> tuple[WorkspaceRef, BuiltDataset]:
    workspace = Workspace.open(tmp_path)
    return WorkspaceRef(root=str(tmp_path)), built(make_build(workspace))


def test_the_batches_are_put_together_step_by_step(tmp_path):
    outputs = make_build(Workspace.open(tmp_path))
    assert outputs_of(built(outputs)) == outputs


def test_page_twin_and_card_are_written_and_not_again(small, tmp_path):
    reference, dataset = small
    keys = report_dataset.fn(reference, RECIPE, dataset)
    assert keys.page == "reports/dataset-small.html"
    files = [tmp_path / key for key in (keys.page, keys.twin, *keys.cards)]
    assert [path.name for path in files] == ["dataset-small.html", "dataset-small.json", "README.md"]
    before = [path.stat().st_mtime_ns for path in files]
    report_dataset.fn(reference, RECIPE, dataset)
    assert [path.stat().st_mtime_ns for path in files] == before


def test_what_is_gone_is_made_again_and_a_card_that_is_the_same_is_not_touched(small, tmp_path):
    reference, dataset = small
    keys = report_dataset.fn(reference, RECIPE, dataset)
    card, page = tmp_path / keys.cards[0], tmp_path / keys.page
    written = card.stat().st_mtime_ns
    page.unlink()
    report_dataset.fn(reference, RECIPE, dataset)
    assert page.is_file()
    assert card.stat().st_mtime_ns == written


def test_another_setting_makes_another_report(small, tmp_path):
    reference, dataset = small
    keys = report_dataset.fn(reference, RECIPE, dataset)
    other = DataRecipe.model_validate({"name": "small", "data": {"sources": "demo", "batch_size": 7}})
    report_dataset.fn(reference, other, dataset)
    assert "batch_size: 7" in (tmp_path / keys.page).read_text()
    assert "batch_size: 7" in (tmp_path / keys.cards[0]).read_text()
    report_dataset.fn(reference, RECIPE, dataset)  # and back again
    assert "batch_size: 7" not in (tmp_path / keys.page).read_text()
