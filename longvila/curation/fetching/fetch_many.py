"""A batch of sources fetched at once, resumed source by source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from longvila.config.addresses import is_relative, redacted, resolve_url
from longvila.config.sourcing import FetchConfig
from longvila.curation.fetching import fetch
from longvila.curation.fetching.budget import Budget, cut_where_full
from longvila.curation.fetching.download import Downloader
from longvila.curation.fetching.fetch import FetchedVideo
from longvila.curation.listing.private import with_whole_address
from longvila.errors import InputError, ItemError
from longvila.records import Source
from longvila.storage import StepResult, Workspace, run_step, run_whole


def fetch_batch(
    workspace: Workspace,
    sources: Sequence[Source],
    config: FetchConfig,
    *,
    base: str | Path | None = None,
    addresses: Mapping[str, str] | None = None,
    used_bytes: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> StepResult[FetchedVideo]:
    """Fetch sources into the workspace; each becomes a ``FetchedVideo`` or a rejection.

    Paths are put below ``base``. ``addresses`` are those, by source id, that a manifest may not hold.
    ``used_bytes`` is what the batches before this one took of ``config.max_total_bytes``. What a source is
    known by is the address in its list, so that a server on another port, or an address signed anew,
    changes nothing.
    """
    if base is None and any(is_relative(source.url) for source in sources):
        raise InputError("The sources have relative addresses. Say with base= what they are relative to.")
    limit_bytes = config.max_total_bytes
    budget = Budget(sources, limit_bytes=limit_bytes, used_bytes=used_bytes) if limit_bytes else None

    def process(source: Source) -> FetchedVideo:
        whole = with_whole_address(source, addresses or {})
        found = whole.model_copy(update={"url": resolve_url(whole.url, base or "")})
        try:
            fetched = fetch.fetch_source(
                found, workspace=workspace, config=config, downloader=downloader, budget=budget
            )
        except ItemError as error:  # a person knows the path of the list, not where it was served
            words = error.detail.replace(redacted(found.url), source.url)
            raise ItemError(error.reason, words if is_relative(source.url) else error.detail) from error
        return fetched.model_copy(update={"url": source.url}) if is_relative(source.url) else fetched

    def still_valid(fetched: FetchedVideo) -> bool:
        if not workspace.storage.exists(fetched.key):
            return False
        if budget:
            budget.know(fetched)
        return True

    pages = any(source.fetcher == "yt-dlp" for source in sources)
    with Downloader(config, pace_folder=workspace.scratch("pace")) as downloader:
        result = run_step(
            workspace,
            name="fetch",
            version=fetch.VERSION,
            settings={"video_format": config.video_format} if pages else None,  # limits change no file
            items=sources,
            process=process,
            result_cls=FetchedVideo,
            progress=progress,
            still_valid=still_valid,
            retried_reasons=fetch.RETRIED_REASONS,
            workers=config.connections,
        )
    return result if limit_bytes is None else _within(workspace, sources, result, limit_bytes, used_bytes)


def _within(
    workspace: Workspace,
    sources: Sequence[Source],
    result: StepResult[FetchedVideo],
    limit_bytes: int,
    used_bytes: int,
) -> StepResult[FetchedVideo]:
    """The part of a batch that fits into what is left of the set."""
    return run_whole(
        workspace,
        name="fetch-within",
        version=fetch.VERSION,
        settings={"limit_bytes": limit_bytes, "used_bytes": used_bytes},
        inputs=[*result.results, *result.rejections],
        compute=lambda: cut_where_full(
            sources, result.results, result.rejections, limit_bytes=limit_bytes, used_bytes=used_bytes
        ),
        result_cls=FetchedVideo,
    )
