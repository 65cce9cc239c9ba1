"""Bring sources into the workspace and check them."""

from __future__ import annotations

import logging
from pathlib import Path

from prefect import task

from longvila.config.sources import is_relative, load_sources, resolve_url, source_list_path
from longvila.config.sourcing import FetchConfig, NormaliseConfig, ValidateConfig
from longvila.curation import build, fetch
from longvila.curation.download import Downloader
from longvila.curation.fetch import FetchedVideo
from longvila.errors import InputError
from longvila.records import Source
from longvila.storage import run_step
from tasks.artifacts import add_table
from tasks.policy import HOUR_S, NETWORK_DELAYS, is_transient
from tasks.progress import StepProgress
from tasks.refs import ManifestRef, WorkspaceRef, read_records, step_ref, write_batches

logger = logging.getLogger(__name__)
CONNECTIONS = 4


@task(tags=["sources"], task_run_name="sources-{source_list}")
def list_sources(workspace: WorkspaceRef, source_list: str, batch_size: int) -> list[ManifestRef]:
    """Read a source list and cut it into batches, the unit that the next tasks work on."""
    sources = load_sources(source_list)
    rows = [source.model_dump(include={"source_id", "split", "url", "license"}) for source in sources]
    add_table("sources", rows, description=f"What {source_list} lists")
    return write_batches(workspace.open(), "sources", sources, Source, size=batch_size)


@task(
    retries=3,
    retry_delay_seconds=NETWORK_DELAYS,
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
    timeout_seconds=12 * HOUR_S,
    tags=["net-download"],
    task_run_name="fetch-{sources.num_items}",
)
def fetch_batch(
    workspace: WorkspaceRef, sources: ManifestRef, config: FetchConfig, base: str | None = None
) -> ManifestRef:
    """Fetch a batch of sources. ``base`` is what relative addresses are put below: an address or a folder.

    What a source is known by is the address in its list, so that a server on another port changes nothing.
    """
    opened = workspace.open()
    items = read_records(opened, sources, Source)
    if base is None and any(is_relative(item.url) for item in items):
        raise InputError("The sources have relative addresses. Say with base= what they are relative to.")
    place: str | Path = Path(base) if base and "://" not in base else base or ""

    with Downloader(config) as downloader:

        def process(source: Source) -> FetchedVideo:
            found = source.model_copy(update={"url": resolve_url(source.url, place)})
            fetched = fetch.fetch_source(found, workspace=opened, config=config, downloader=downloader)
            return fetched.model_copy(update={"url": source.url}) if is_relative(source.url) else fetched

        result = run_step(
            opened,
            name="fetch",
            version=fetch.VERSION,
            settings=None,  # limits and manners do not change what a file is
            items=items,
            process=process,
            result_cls=FetchedVideo,
            progress=StepProgress("fetch", unit="sources"),
            still_valid=lambda fetched: opened.storage.exists(fetched.key),
            retried_reasons=fetch.PASSING_REASONS,
            workers=CONNECTIONS,
        )
    return step_ref("fetch", result, num_items=len(items))


@task(
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
    timeout_seconds=24 * HOUR_S,
    tags=["ffmpeg"],
    task_run_name="validate-{fetched.num_results}",
)
def validate_batch(
    workspace: WorkspaceRef,
    fetched: ManifestRef,
    config: ValidateConfig,
    normalise: NormaliseConfig = build.NORMALISE,
) -> ManifestRef:
    """Check that fetched files are whole videos, and record what they are; some are encoded anew first."""
    opened = workspace.open()
    items = read_records(opened, fetched, FetchedVideo)
    progress = StepProgress("validate", unit="videos")
    result = build.validate_batch(opened, items, config, normalise, progress=progress)
    return step_ref("validate", result, num_items=len(items))


def served_base(source_list: str) -> str:
    """The folder of a source list: where its relative addresses lead without any server."""
    return str(source_list_path(source_list).resolve().parent)
