"""Build a data set: sources → videos → scans → clips → captions → questions → shards."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import flow
from prefect.task_runners import TaskRunner

from flows.common import begin
from flows.params import BuildParams
from flows.preflight import check_build
from flows.runners import batch_runner, over_batches
from flows.state import check_rejections, remember_dataset, source_marks
from longvila.config.data import DataConfig
from longvila.config.sourcing import FetchConfig
from longvila.curation.duplicates.lists import is_source_list
from longvila.records import VideoRecord
from tasks import curation, dataset_report, datasets, duplicates, fetch
from tasks.contents import BuiltDataset
from tasks.refs import ManifestRef, WorkspaceRef, join_refs, read_records, write_batch
from tasks.servers import LOOPBACK, open_workspace, serve_sources

logger = logging.getLogger(__name__)
OWN_SERVER_REQUESTS_S = 1000.0


@flow(
    name="build-dataset",
    flow_run_name="build-{params.recipe}",
    description="Fetch, check, cut, caption, ask, and write shards.",
)
def build_dataset(params: BuildParams) -> BuiltDataset:
    """Build the recipe's data sets. What is done already is not done again; what is new is added."""
    begin("build-dataset")
    recipe = check_build(params)
    data = recipe.data
    with open_workspace(params.workspace, params.storage) as reference:
        with batch_runner(data.runner) as runner:
            evaluation = protect(runner, data, reference)
            with serve_sources(data.sources) as address:
                fetched, sources = bring_in(runner, data, reference, address)
            result = make_datasets(runner, data, reference, fetched, sources, evaluation)
        remember_dataset(reference, recipe.name, result)
        dataset_report.report_dataset(reference, recipe, result)
    check_rejections(result, data)
    return result


def bring_in(
    runner: TaskRunner[Any], data: DataConfig, reference: WorkspaceRef, address: str | None
) -> tuple[list[ManifestRef], list[ManifestRef]]:
    """Fetch all sources; ``address`` is where those with relative addresses are served."""
    sources = fetch.list_sources(reference, data.sources, data.batch_size, data.fetch)
    config = allow_loopback(data.fetch, address) if address else data.fetch
    if config.max_total_bytes:
        return fetch.fetch_in_order(reference, sources, config, address), sources
    over = {"sources": sources}
    return over_batches(runner, fetch.fetch_batch, reference, over, config=config, base=address), sources


def protect(runner: TaskRunner[Any], data: DataConfig, reference: WorkspaceRef) -> list[ManifestRef]:
    """What is known of the evaluation videos: their names, and the fingerprints of those that are there."""
    known: list[ManifestRef] = []
    for name in data.dedup.evaluation_lists:
        listed = duplicates.list_evaluation(reference, name)
        known.append(listed)
        if is_source_list(name):
            known += fingerprint_list(runner, data, reference, name, listed)
    return known


def fingerprint_list(
    runner: TaskRunner[Any], data: DataConfig, reference: WorkspaceRef, name: str, listed: ManifestRef
) -> list[ManifestRef]:
    """Fetch, check and fingerprint the videos of one evaluation list."""

    def each(task: Any, over: Mapping[str, Sequence[ManifestRef]], **same: Any) -> list[ManifestRef]:
        return over_batches(runner, task, reference, over, **same)

    with serve_sources(name) as address:
        sources = fetch.list_sources(reference, name, data.batch_size, data.fetch)
        config = allow_loopback(data.fetch, address) if address else data.fetch
        fetched = each(fetch.fetch_batch, {"sources": sources}, config=config, base=address)
    checked = each(
        fetch.validate_batch, {"fetched": fetched}, config=data.validation, normalise=data.normalise
    )
    found = each(duplicates.fingerprint_batch, {"videos": checked}, listed=listed)
    duplicates.warn_of_unread(reference, [*fetched, *checked, *found])
    return found


def make_datasets(
    runner: TaskRunner[Any],
    data: DataConfig,
    reference: WorkspaceRef,
    fetched: Sequence[ManifestRef],
    sources: Sequence[ManifestRef],
    evaluation: Sequence[ManifestRef] = (),
) -> BuiltDataset:
    """Everything from fetched files to verified shards. ``evaluation``: what the set must not show."""

    def each(task: Any, over: Mapping[str, Sequence[ManifestRef]], **same: Any) -> list[ManifestRef]:
        return over_batches(runner, task, reference, over, **same)

    checked = each(
        fetch.validate_batch, {"fetched": fetched}, config=data.validation, normalise=data.normalise
    )
    everything = each(curation.scan_batch, {"videos": checked}, shots=data.shots, frames=data.frames)
    pairs = duplicates.find_duplicates(
        reference, list(checked), list(everything), data.dedup, list(evaluation), list(sources)
    )
    kept = curation.dedup_all(reference, list(checked), list(everything), pairs)
    batches = kept_batches(reference, kept, everything)
    curation.check_splits(reference, kept, list(batches["scans"]), data.dedup)
    clips = each(curation.make_clips, batches, config=data.clips)
    captions = each(curation.caption_clips, {**batches, "clips": clips}, config=data.captions)
    said = {"captions": captions}
    if data.captions.levels:
        said["summaries"] = each(curation.summarise_videos, {**batches, **said}, config=data.captions)
    asked = each(curation.write_questions, {**batches, **said}, config=data.questions)
    questions = curation.filter_questions(reference, kept, asked)
    written = write_all_shards(data, reference, kept, batches["scans"], questions)
    steps = [join_refs(step) for step in (sources, fetched, checked, everything)] + [kept]
    steps += [join_refs(step) for step in (clips, *said.values(), asked)] + [questions]
    workspace = reference.open()
    return BuiltDataset(
        datasets={ref.name: workspace.url(f"shards/{ref.name}") for ref in written},
        sources=source_marks(workspace, sources, fetched),
        videos=kept,
        scans=tuple(batches["scans"]),
        captions=tuple(captions),
        questions=questions,
        steps=tuple(steps),
        rejections=tuple(
            ref
            for step in (
                *(sources, fetched, checked, everything, [kept], clips),
                *(*said.values(), asked, [questions]),
            )
            for ref in step
        ),
        duplicates=pairs,
        num_rejected_sources=sum(step.num_rejections for step in steps[:5]),
        reused=all(step.reused for step in steps[1:]) and all(ref.reused for ref in written),
    )


def write_all_shards(
    data: DataConfig,
    reference: WorkspaceRef,
    videos: ManifestRef,
    scans: Sequence[ManifestRef],
    questions: ManifestRef,
) -> list[datasets.DatasetRef]:
    """Write and verify every data set of the recipe, one after another."""
    written = [
        datasets.question_shards(
            reference, videos, list(scans), questions, data.shards, choice_answer=data.questions.choice_answer
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


def kept_batches(
    reference: WorkspaceRef, kept: ManifestRef, everything: Sequence[ManifestRef]
) -> dict[str, list[ManifestRef]]:
    """The videos that were kept and their scans, batch by batch as they were scanned.

    A batch whose videos were all rejected is left out. Batches stay what they are when the set grows.
    """
    from longvila.curation.scan import Scan

    workspace = reference.open()
    videos = {video.video_id: video for video in read_records(workspace, kept, VideoRecord)}
    batches: dict[str, list[ManifestRef]] = {"videos": [], "scans": []}
    for batch in everything:
        scans = [scan for scan in read_records(workspace, batch, Scan) if scan.video_id in videos]
        own: list[VideoRecord] = [videos[scan.video_id] for scan in scans]
        if scans:
            batches["scans"].append(write_batch(workspace, "scans", scans, Scan))
            batches["videos"].append(write_batch(workspace, "videos", own, VideoRecord))
    return batches


def allow_loopback(config: FetchConfig, address: str) -> FetchConfig:
    """The same limits, with the flow's own server allowed by name, and as fast as it can."""
    hosts = tuple(dict.fromkeys((*config.allow_private_hosts, LOOPBACK)))
    rates = {address.partition("://")[2]: OWN_SERVER_REQUESTS_S} | config.host_rates
    return config.model_copy(update={"allow_private_hosts": hosts, "host_rates": rates})
