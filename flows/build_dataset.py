"""Build a data set: sources → videos → scans → clips → captions → questions → shards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from prefect import flow, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from flows.common import begin
from flows.params import BuildParams
from flows.preflight import check_before_start
from flows.state import check_rejections, remember_dataset, source_marks
from longvila.config.data import DataConfig
from longvila.config.recipe import Recipe
from longvila.config.sourcing import FetchConfig
from longvila.errors import ConfigError
from longvila.records import VideoRecord
from tasks import curation, datasets, fetch
from tasks.contents import BuiltDataset
from tasks.refs import ManifestRef, WorkspaceRef, join_refs, read_records, write_batches
from tasks.servers import LOOPBACK, open_workspace, serve_sources

logger = logging.getLogger(__name__)
BATCHES_AT_ONCE = 2


@flow(
    name="build-dataset",
    flow_run_name="build-{params.recipe}",
    description="Fetch, check, cut, caption, ask, and write shards.",
    task_runner=ThreadPoolTaskRunner(max_workers=BATCHES_AT_ONCE),  # type: ignore[arg-type]
)
def build_dataset(params: BuildParams) -> BuiltDataset:
    """Build the recipe's data sets. What is done already is not done again; what is new is added."""
    begin("build-dataset")
    recipe = check_before_start(params)
    if recipe.data is None:
        raise ConfigError(
            f"Recipe {recipe.name!r} has no data section: its stages name shards that exist already."
        )
    with open_workspace(params.workspace, params.storage) as reference:
        with serve_sources(recipe.data.sources) as address:
            fetched, sources = bring_in(recipe.data, reference, address)
        result = make_datasets(recipe, reference, fetched, sources)
        remember_dataset(reference, recipe.name, result)
    check_rejections(result, recipe.data)
    return result


def bring_in(
    data: DataConfig, reference: WorkspaceRef, address: str | None
) -> tuple[list[ManifestRef], list[ManifestRef]]:
    """Fetch all sources; ``address`` is where those with relative addresses are served."""
    sources = fetch.list_sources(reference, data.sources, data.batch_size)
    config = allow_loopback(data.fetch) if address else data.fetch
    return over_batches(
        fetch.fetch_batch, reference, sources, over="sources", config=config, base=address
    ), sources


def make_datasets(
    recipe: Recipe, reference: WorkspaceRef, fetched: Sequence[ManifestRef], sources: Sequence[ManifestRef]
) -> BuiltDataset:
    """Everything from fetched files to verified shards."""
    data = recipe.data
    assert data is not None
    checked = over_batches(fetch.validate_batch, reference, fetched, over="fetched", config=data.validation)
    everything = over_batches(
        curation.scan_batch, reference, checked, over="videos", shots=data.shots, frames=data.frames
    )
    kept = curation.dedup_all(reference, list(checked), list(everything), data.dedup)
    scans = split_scans(reference, kept, everything, data)
    curation.check_splits(reference, kept, scans, data.dedup)
    clips = over_batches(curation.make_clips, reference, scans, over="scans", videos=kept, config=data.clips)
    captions = over_batches(
        curation.caption_clips, reference, scans, over="scans", videos=kept, clips=clips, config=data.captions
    )
    asked = over_batches(
        curation.write_questions,
        reference,
        scans,
        over="scans",
        videos=kept,
        captions=captions,
        config=data.questions,
    )
    questions = curation.filter_questions(reference, kept, asked)
    written = write_all_shards(recipe, reference, kept, scans, questions)
    steps = [join_refs(step) for step in (fetched, checked, everything)] + [kept]
    steps += [join_refs(step) for step in (clips, captions, asked)] + [questions]
    workspace = reference.open()
    return BuiltDataset(
        datasets={ref.name: workspace.url(f"shards/{ref.name}") for ref in written},
        sources=source_marks(workspace, sources, fetched),
        videos=kept,
        scans=tuple(scans),
        captions=tuple(captions),
        questions=questions,
        steps=tuple(steps),
        rejections=(*fetched, *checked, *everything, kept, *clips, *captions, *asked, questions),
        num_rejected_sources=sum(step.num_rejections for step in steps[:4]),
        reused=all(step.reused for step in steps) and all(ref.reused for ref in written),
    )


def write_all_shards(
    recipe: Recipe,
    reference: WorkspaceRef,
    videos: ManifestRef,
    scans: Sequence[ManifestRef],
    questions: ManifestRef,
) -> list[datasets.DatasetRef]:
    """Write and verify every data set of the recipe, one after another."""
    data = recipe.data
    assert data is not None
    written = [
        datasets.question_shards(
            reference,
            videos,
            list(scans),
            questions,
            data.shards,
            choice_answer=data.questions.choice_answer,
        )
    ]
    for captions in data.frame_captions:
        written.append(datasets.frame_caption_shards(reference, videos, captions, data.frames, data.shards))
    for needles in data.needle_sets:
        written.append(datasets.needle_shards(reference, videos, needles, data.frames, data.shards))
    for texts in data.recall_texts:
        written.append(datasets.recall_shards(reference, texts, data.shards))
    for ref in written:
        datasets.verify_shards(reference, ref.name)
    return written


def split_scans(
    reference: WorkspaceRef, kept: ManifestRef, everything: Sequence[ManifestRef], data: DataConfig
) -> list[ManifestRef]:
    """The scans of the videos that were kept, in batches."""
    from longvila.curation.scan import Scan

    workspace = reference.open()
    ids = {video.video_id for video in read_records(workspace, kept, VideoRecord)}
    scans = [scan for scan in read_records(workspace, everything, Scan) if scan.video_id in ids]
    return write_batches(workspace, "scans", scans, Scan, size=data.batch_size)


def over_batches(
    task: Any, reference: WorkspaceRef, batches: Sequence[ManifestRef], *, over: str, **same: Any
) -> list[ManifestRef]:
    """Run a task on every batch (its parameter ``over``), two at a time, and wait.

    The first error of any batch is raised.
    """
    if len(batches) == 1:
        return [task(workspace=reference, **{over: batches[0]}, **same)]
    fixed = {name: unmapped(value) for name, value in same.items()}
    futures = task.map(workspace=unmapped(reference), **{over: list(batches)}, **fixed)
    return [future.result() for future in futures]


def allow_loopback(config: FetchConfig) -> FetchConfig:
    """The same limits, with the demo's own server allowed by name."""
    hosts = tuple(dict.fromkeys((*config.allow_private_hosts, LOOPBACK)))
    return config.model_copy(update={"allow_private_hosts": hosts})
