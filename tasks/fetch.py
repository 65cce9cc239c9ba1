"""Bring sources into the workspace and check them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from prefect import task

from longvila.config.sources import source_list_path
from longvila.config.sourcing import FetchConfig, NormaliseConfig, ValidateConfig
from longvila.curation import build
from longvila.curation.fetching import fetch_many
from longvila.curation.fetching.budget import FULL
from longvila.curation.fetching.fetch import FetchedVideo
from longvila.curation.listing import private
from longvila.curation.listing import sources as source_lists
from longvila.curation.listing.listing import Listing
from longvila.records import Rejection, Source
from longvila.storage import Workspace, write_manifest
from tasks.artifacts import MAX_ROWS, add_table
from tasks.policy import HOUR_S, NETWORK_DELAYS, in_flow_or_plain, is_transient
from tasks.progress import StepProgress
from tasks.refs import ManifestRef, WorkspaceRef, read_records, read_rejections, step_ref, write_batches

logger = logging.getLogger(__name__)
DEFAULT_FETCH = FetchConfig()


@task(
    retries=3,
    retry_delay_seconds=NETWORK_DELAYS,
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
    tags=["sources"],
    task_run_name="sources-{source_list}",
)
def list_sources(
    workspace: WorkspaceRef, source_list: str, batch_size: int, config: FetchConfig = DEFAULT_FETCH
) -> list[ManifestRef]:
    """Read a source list, look into its folders and tables, and cut what is found into batches.

    ``config`` has the limits for tables that are fetched from elsewhere.
    """
    opened = workspace.open()
    listing = source_lists.list_sources(source_list, scratch=opened.scratch("tables"), config=config)
    logger.info("%s\n%s", source_list, listing.table())
    rows = [
        private.published(source).model_dump(include={"source_id", "split", "url", "license"})
        for source in listing.sources[:MAX_ROWS]
    ]
    add_table("sources", rows, description=f"What {source_list} lists\n\n```\n{listing.table()}\n```")
    return _write_listing(opened, listing, size=batch_size)


def _write_listing(opened: Workspace, listing: Listing, *, size: int) -> list[ManifestRef]:
    """Write the batches; what was rejected counts as the first one's."""
    shown = [private.published(source) for source in listing.sources]
    refs = write_batches(opened, "sources", shown, Source, size=size)
    for number, ref in enumerate(refs):
        private.keep_addresses(opened, ref.key, listing.sources[number * size : (number + 1) * size])
        rejected = [] if number else listing.rejections
        write_manifest(opened.storage, ref.rejections_key, rejected, cls=Rejection)
    num_rejected = len(listing.rejections)
    counts = {"num_items": refs[0].num_items + num_rejected, "num_rejections": num_rejected}
    return [refs[0].model_copy(update=counts), *refs[1:]]


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
    workspace: WorkspaceRef,
    sources: ManifestRef,
    config: FetchConfig,
    base: str | None = None,
    used_bytes: int = 0,
) -> ManifestRef:
    """Fetch a batch of sources. ``base`` is what relative addresses are put below: an address or a folder.

    ``used_bytes`` is what earlier batches took of ``config.max_total_bytes``, see ``fetch_in_order``.
    """
    opened = workspace.open()
    items = read_records(opened, sources, Source)
    result = fetch_many.fetch_batch(
        opened,
        items,
        config,
        base=base,
        addresses=private.whole_addresses(opened, sources.key),
        used_bytes=used_bytes,
        progress=StepProgress("fetch", unit="sources"),
    )
    return step_ref("fetch", result, num_items=len(items))


def fetch_in_order(
    workspace: WorkspaceRef, batches: Sequence[ManifestRef], config: FetchConfig, base: str | None = None
) -> list[ManifestRef]:
    """Fetch batches one after another: with ``max_total_bytes`` what fits depends on those before."""
    opened, done, used_bytes = workspace.open(), [], 0
    for batch in batches:
        done.append(in_flow_or_plain(fetch_batch)(workspace, batch, config, base, used_bytes))
        used_bytes += sum(found.size_bytes for found in read_records(opened, done[-1], FetchedVideo))
        if any(item.reason == FULL for item in read_rejections(opened, done[-1:])):
            used_bytes = config.max_total_bytes or used_bytes
    return done


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
