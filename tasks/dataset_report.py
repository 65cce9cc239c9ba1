"""Report on one data build: an HTML page, the same as JSON, and a card beside the shards of every set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from prefect import task

from longvila.config.load import dump_settings
from longvila.config.model import Settings
from longvila.config.recipe import DataRecipe
from longvila.curation import captions, clips, dedup, fetch, filters, questions, scan, validate
from longvila.curation.dedup import SplitReport
from longvila.curation.scan import Scan
from longvila.data import open_index
from longvila.report.dataset import (
    CARD_FILE,
    About,
    Batch,
    BuildOutputs,
    BuildReport,
    StepOutput,
    card_facts,
    gather_build,
    render_build_report,
    render_card,
    report_json,
)
from longvila.storage import Storage, Workspace
from tasks.artifacts import add_link
from tasks.contents import BuiltDataset
from tasks.marks import mark_for
from tasks.policy import HOUR_S, is_transient
from tasks.refs import ManifestRef, WorkspaceRef, read_records

logger = logging.getLogger(__name__)
VERSION = 1
STEP_VERSIONS = {
    "fetch": fetch.VERSION,
    "validate": validate.VERSION,
    "scan": scan.VERSION,
    "dedup": dedup.VERSION,
    "clips": clips.VERSION,
    "captions": captions.VERSION,
    "questions": questions.VERSION,
    "filter-questions": filters.VERSION,
}


class DatasetReport(Settings):
    """Where the report on a build lies in the workspace's storage, and the cards of its data sets."""

    page: str
    twin: str
    cards: tuple[str, ...]


@task(
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
    timeout_seconds=HOUR_S,
    tags=["report"],
    task_run_name="dataset-report",
)
def report_dataset(workspace: WorkspaceRef, recipe: DataRecipe, dataset: BuiltDataset) -> DatasetReport:
    """Write ``reports/dataset-NAME.html``, the same as ``.json``, and ``README.md`` beside the shards.

    They are made again when the build, its settings or a shard changed, and when one of them is gone.
    """
    opened = workspace.open()
    keys = DatasetReport(
        page=f"reports/dataset-{recipe.name}.html",
        twin=f"reports/dataset-{recipe.name}.json",
        cards=tuple(f"shards/{name}/{CARD_FILE}" for name in dataset.datasets),
    )
    mark = mark_for("dataset-report", VERSION, recipe, _made_from(opened, dataset))
    done = mark.read(opened, DatasetReport) is not None
    if not (done and all(opened.storage.exists(key) for key in (keys.page, keys.twin, *keys.cards))):
        _write(opened, gather(opened, recipe, dataset), keys, dataset)
        mark.write(opened, keys)
    add_link(f"dataset-{recipe.name}", _address(opened, keys.page), text="the data set")
    logger.info("the report on the data set is %s", _address(opened, keys.page))
    return keys


def gather(workspace: Workspace, recipe: DataRecipe, dataset: BuiltDataset) -> BuildReport:
    """Everything that the page shows, read from where the build left it."""
    about = About(
        name=recipe.name,
        description=recipe.description,
        created=datetime.now(UTC),
        settings=dump_settings(recipe.data),
        step_versions=STEP_VERSIONS,
    )
    return gather_build(
        workspace, outputs_of(dataset), about, splits=_split_report(workspace, recipe, dataset)
    )


def outputs_of(dataset: BuiltDataset) -> BuildOutputs:
    """The batches of every step, in the order in which the steps ran."""
    batches: dict[str, list[Batch]] = {}
    for ref in dataset.rejections or dataset.steps:
        batches.setdefault(ref.step, []).append(_batch(ref))
    steps = tuple(StepOutput(step=step, batches=tuple(refs)) for step, refs in batches.items())
    return BuildOutputs(steps=steps, datasets=dataset.datasets)


def _batch(ref: ManifestRef) -> Batch:
    return Batch(
        key=ref.key,
        num_items=ref.num_items,
        num_results=ref.num_results,
        num_rejections=ref.num_rejections,
    )


def _write(workspace: Workspace, report: BuildReport, keys: DatasetReport, dataset: BuiltDataset) -> None:
    for name, key in zip(dataset.datasets, keys.cards, strict=True):
        card = render_card(card_facts(open_index(workspace.storage, name)), report)
        _put_if_changed(workspace.storage, key, card.encode())
    workspace.storage.put_bytes(keys.twin, report_json(report).encode())
    workspace.storage.put_bytes(keys.page, render_build_report(report).encode())


def _put_if_changed(storage: Storage, key: str, data: bytes) -> None:
    """Write a file unless it lies there already with this content."""
    if not (storage.exists(key) and storage.get_bytes(key) == data):
        storage.put_bytes(key, data)


def _made_from(workspace: Workspace, dataset: BuiltDataset) -> dict[str, object]:
    """What the report rests on."""
    refs: Sequence[ManifestRef] = (*dataset.rejections, dataset.videos, dataset.questions)
    indices = {name: open_index(workspace.storage, name).hash for name in dataset.datasets}
    return {"manifests": [ref.key for ref in refs], "indices": indices, "versions": STEP_VERSIONS}


def _split_report(workspace: Workspace, recipe: DataRecipe, dataset: BuiltDataset) -> SplitReport | None:
    """What the comparison of the splits found; none where it left no marker."""
    scans = read_records(workspace, dataset.scans, Scan)
    mark = mark_for("check-splits", dedup.VERSION, recipe.data.dedup, [found.scan_id for found in scans])
    found = mark.read(workspace, SplitReport)
    return found if isinstance(found, SplitReport) else None


def _address(workspace: Workspace, key: str) -> str:
    """An address that opens it: of a local file, or of the object."""
    path = workspace.storage.local_path(key)
    return path.resolve().as_uri() if path else workspace.url(key)
