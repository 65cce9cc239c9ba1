"""Sources become checked videos: fetch, validate, encode anew where needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from longvila.config.sourcing import NormaliseConfig, ValidateConfig
from longvila.curation import (
    normalise,
    validate,
)
from longvila.curation.fetching.fetch import FetchedVideo
from longvila.media.guard import Guard
from longvila.records import VideoRecord
from longvila.storage import StepResult, Workspace, run_step

Progress = Callable[[int, int], None] | None
NORMALISE = NormaliseConfig()  # when a caller does not say


def validate_batch(
    workspace: Workspace,
    fetched: Sequence[FetchedVideo],
    config: ValidateConfig,
    normalising: NormaliseConfig = NORMALISE,
    *,
    progress: Progress = None,
) -> StepResult[VideoRecord]:
    """Keep the files that are whole videos, those that need it encoded anew."""
    with Guard(timeout_s=config.timeout_s, memory_bytes=config.memory_bytes) as guard:
        return run_step(
            workspace,
            name="validate",
            version=validate.VERSION,
            settings={"validation": config.model_dump(), "normalise": normalising.model_dump()},
            items=fetched,
            process=lambda item: normalise.bring_in(item, workspace, config, normalising, guard=guard),
            result_cls=VideoRecord,
            progress=progress,
            still_valid=lambda video: workspace.storage.exists(video.key),
        )
