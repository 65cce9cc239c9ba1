"""Sources become checked videos: fetch, validate, encode anew where needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from longvila.config.footage import ClipConfig, FramesConfig, ShotConfig
from longvila.config.language import CaptionConfig, QuestionConfig
from longvila.config.sourcing import DedupConfig, FetchConfig, NormaliseConfig, ValidateConfig
from longvila.curation import (
    captioners,
    captions,
    clips,
    filters,
    normalise,
    questions,
    samples,
    scan,
    summaries,
    validate,
)
from longvila.curation.asking.outline import lines_of
from longvila.curation.asking.steps import Told, check_settings, checker_of, write_with_model
from longvila.curation.captioners import Captioner, Footage
from longvila.curation.duplicates import judge, steps
from longvila.curation.duplicates.pairs import DuplicatePair
from longvila.curation.duplicates.protected import EvaluationVideo
from longvila.curation.duplicates.splits import SplitReport, compare_splits
from longvila.curation.duplicates.store import StoredFingerprints
from longvila.curation.fetching import fetch
from longvila.curation.fetching.download import Downloader
from longvila.curation.fetching.fetch import FetchedVideo
from longvila.curation.language.opening import open_model
from longvila.curation.language.protocol import LanguageModel
from longvila.curation.on_screen_text import RapidReader, SeenText, texts_of_video
from longvila.curation.scan import Scan
from longvila.media.guard import Guard
from longvila.media.jpeg import FrameBlob
from longvila.records import Caption, Clip, Question, Record, Sample, Shot, Source, Split, VideoRecord
from longvila.storage import StepResult, Workspace, run_step, run_whole


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
