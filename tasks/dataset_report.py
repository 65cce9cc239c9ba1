"""Report on one data build: an HTML page, the same as JSON, and a card beside the shards of every set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from prefect import task
from pydantic import Field

from longvila.config.load import dump_settings
from longvila.config.model import Settings
from longvila.config.recipe import DataRecipe
from longvila.curation import captioners, captions, clips, filters, questions, scan, summaries, validate
from longvila.curation.asking import judge, writer
from longvila.curation.duplicates import steps as duplicates
from longvila.curation.duplicates.splits import SplitReport
from longvila.curation.fetching import fetch
from longvila.curation.scan import Scan
from longvila.data import open_index
from longvila.records import content_id
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
from tasks.marks import Mark, mark_for
from tasks.policy import HOUR_S, is_transient
from tasks.refs import ManifestRef, WorkspaceRef, read_records

logger = logging.getLogger(__name__)
VERSION = 1


class DatasetReport(Settings):
    """Where the report on a build lies in the workspace's storage, and the cards of its data sets."""

    page: str
    twin: str
    cards: tuple[str, ...]
    made_from: str = Field(description="a hash of all that the page and the cards tell of")


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
        made_from=_made_from(opened, recipe, dataset),
    )
    mark = Mark(key=f"manifests/dataset-report/{recipe.name}.json")  # of the page that lies there now
    done = mark.read(opened, DatasetReport) == keys
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
        step_versions=step_versions(recipe),
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
    pairs = dataset.duplicates.key if dataset.duplicates else ""
    return BuildOutputs(steps=steps, datasets=dataset.datasets, duplicates=pairs)


def step_versions(recipe: DataRecipe) -> dict[str, int]:
    """The version of each step's code, which is part of the name of its output."""
    by_model = recipe.data.captions.model is not None, recipe.data.questions.writer == "model"
    return {
        "fetch": fetch.VERSION,
        "validate": validate.VERSION,
        "scan": scan.VERSION,
        "dedup": duplicates.VERSION,
        "clips": clips.VERSION,
        "captions": captioners.VERSION if by_model[0] else captions.VERSION,
        "summaries": summaries.VERSION,
        "questions": writer.VERSION + judge.VERSION if by_model[1] else questions.VERSION,
        "filter-questions": filters.VERSION,
    }


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


def _made_from(workspace: Workspace, recipe: DataRecipe, dataset: BuiltDataset) -> str:
    """A hash of what the report rests on."""
    refs: Sequence[ManifestRef] = (*dataset.rejections, dataset.videos, dataset.questions)
    indices = {name: open_index(workspace.storage, name).hash for name in dataset.datasets}
    plain = recipe.model_dump(mode="json", include={"name", "description", "data"})
    return content_id(VERSION, plain, [ref.key for ref in refs], indices, step_versions(recipe))


def _split_report(workspace: Workspace, recipe: DataRecipe, dataset: BuiltDataset) -> SplitReport | None:
    """What the comparison of the splits found; none where it left no marker."""
    scans = read_records(workspace, dataset.scans, Scan)
    mark = mark_for("check-splits", duplicates.VERSION, recipe.data.dedup, [found.scan_id for found in scans])
    found = mark.read(workspace, SplitReport)
    return found if isinstance(found, SplitReport) else None


def _address(workspace: Workspace, key: str) -> str:
    """An address that opens it: of a local file, or of the object."""
    path = workspace.storage.local_path(key)
    return path.resolve().as_uri() if path else workspace.url(key)
