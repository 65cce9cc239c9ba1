"""Write shards: questions on real video, single frames, needle videos, recall texts; and read them back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from prefect import task

from longvila.config.data import ShardConfig
from longvila.config.footage import FramesConfig
from longvila.config.model import Settings
from longvila.config.synthetic import FrameCaptionConfig, NeedleSetConfig, RecallTextConfig
from longvila.curation import build, samples
from longvila.curation.composing import frame_captions, needles, recall
from longvila.curation.scan import Scan
from longvila.data import SampleWithFrames, VerifyReport, open_index, verify_dataset, write_dataset
from longvila.errors import InputError
from longvila.media.jpeg import pack_frames
from longvila.records import Question, Sample, Split, VideoRecord
from longvila.storage import Stopwatch, Workspace, add_up, write_stats
from tasks.artifacts import add_table
from tasks.banks import load_bank, videos_of
from tasks.marks import mark_for
from tasks.policy import HOUR_S, is_transient
from tasks.progress import StepProgress
from tasks.refs import ManifestRef, WorkspaceRef, read_records

logger = logging.getLogger(__name__)
VERSION = 1
SPLITS: tuple[Split, ...] = ("train", "heldout")
DEFAULT_SHARDS = ShardConfig()


class DatasetRef(Settings):
    """A data set in the workspace."""

    name: str
    index_hash: str
    num_samples: int
    num_frames: int
    num_shards: int
    reused: bool = False


@task(
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=is_transient,
    timeout_seconds=4 * HOUR_S,
    tags=["shards"],
    task_run_name="question-shards",
)
def question_shards(
    workspace: WorkspaceRef,
    videos: ManifestRef,
    scans: list[ManifestRef],
    questions: ManifestRef,
    shards: ShardConfig = DEFAULT_SHARDS,
    name: str = "questions",
    choice_answer: samples.ChoiceAnswer = "letter",
) -> DatasetRef:
    """Write the questions of both splits with their frames as the data set ``questions``."""
    opened = workspace.open()
    kept = read_records(opened, questions, Question)
    listed, scanned = read_records(opened, videos, VideoRecord), read_records(opened, scans, Scan)

    def of(split: Split) -> Callable[[], Iterable[SampleWithFrames]]:
        return lambda: (
            SampleWithFrames(*item)
            for item in build.question_samples(
                opened, listed, scanned, kept, split=split, choice_answer=choice_answer
            )
        )

    splits: dict[Split, Callable[[], Iterable[SampleWithFrames]]] = {
        split: of(split) for split in SPLITS if samples.count_samples(kept, split)
    }
    total = sum(samples.count_samples(kept, split) for split in splits)
    inputs = (
        "questions", samples.VERSION, choice_answer, questions.key, [found.scan_id for found in scanned],
    )  # fmt: skip
    return _write(opened, name, inputs, splits, total, shards)


@task(
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=is_transient,
    timeout_seconds=4 * HOUR_S,
    tags=["shards"],
    task_run_name="needles-{config.name}",
)
def needle_shards(
    workspace: WorkspaceRef,
    videos: ManifestRef,
    config: NeedleSetConfig,
    frames: FramesConfig,
    shards: ShardConfig = DEFAULT_SHARDS,
) -> DatasetRef:
    """Compose a set of needle videos from the frames of the training videos, and write its shards."""
    opened = workspace.open()
    listed = videos_of(opened, videos, "train")

    def composed() -> Iterable[SampleWithFrames]:
        bank = load_bank(opened, listed, fps=frames.fps, size=frames.size)
        return _packed(needles.needle_samples(config, bank, "train"), frames.jpeg_quality)

    inputs = ("needles", needles.VERSION, config, frames, [video.sha256 for video in listed])
    return _write(opened, config.name, inputs, {"train": composed}, config.num_samples, shards)


@task(
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=is_transient,
    timeout_seconds=4 * HOUR_S,
    tags=["shards"],
    task_run_name="frame-captions-{config.name}",
)
def frame_caption_shards(
    workspace: WorkspaceRef,
    videos: ManifestRef,
    config: FrameCaptionConfig,
    frames: FramesConfig,
    shards: ShardConfig = DEFAULT_SHARDS,
) -> DatasetRef:
    """Write shards of single frames of the training videos, each with a short true caption."""
    opened = workspace.open()
    listed = videos_of(opened, videos, "train")

    def composed() -> Iterable[SampleWithFrames]:
        bank = load_bank(opened, listed, fps=frames.fps, size=frames.size)
        made = frame_captions.frame_caption_samples(config, bank, "train")
        return _packed(made, frames.jpeg_quality)

    inputs = ("frame-captions", frame_captions.VERSION, config, frames, [video.sha256 for video in listed])
    return _write(opened, config.name, inputs, {"train": composed}, config.num_samples, shards)


@task(
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=is_transient,
    timeout_seconds=4 * HOUR_S,
    tags=["shards"],
    task_run_name="recall-{config.name}",
)
def recall_shards(
    workspace: WorkspaceRef, config: RecallTextConfig, shards: ShardConfig = DEFAULT_SHARDS
) -> DatasetRef:
    """Write a set of text-only samples that ask for values named earlier."""

    def composed() -> Iterable[SampleWithFrames]:
        return map(SampleWithFrames, recall.recall_samples(config, "train"))

    inputs = ("recall", recall.VERSION, config)
    return _write(workspace.open(), config.name, inputs, {"train": composed}, config.num_samples, shards)


@task(
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
    timeout_seconds=4 * HOUR_S,
    tags=["shards"],
    task_run_name="verify-{name}",
)
def verify_shards(workspace: WorkspaceRef, name: str, decode: bool = True) -> VerifyReport:
    """Read a data set back and check every byte against its index; ``InputError`` when it is damaged."""
    opened = workspace.open()
    mark = mark_for(f"verify/{name}", open_index(opened.storage, name).hash, decode)
    done = mark.read(opened, VerifyReport)
    if isinstance(done, VerifyReport):
        return done
    with Stopwatch() as watch:
        report = verify_dataset(opened.storage, name, decode=decode)
    count = report.num_samples
    cost = add_up("verify", name, [watch.cost], num_items=count, num_processed=count)
    write_stats(opened.storage, mark.key, cost)
    add_table(f"verify-{name}", [report.model_dump(mode="json", exclude={"problems"})])
    if not report.ok:
        shown = "\n".join(report.problems[:10])
        raise InputError(
            f"Data set {name!r} is damaged ({len(report.problems)} problems):\n{shown}\n"
            f"Remove {opened.url(f'shards/{name}')} and build it again."
        )
    mark.write(opened, report)
    logger.info("%s: %d samples in %d shards are whole", name, report.num_samples, report.num_shards)
    return report


def _write(
    workspace: Workspace,
    name: str,
    inputs: Sequence[object],
    splits: Mapping[Split, Callable[[], Iterable[SampleWithFrames]]],
    num_samples: int,
    shards: ShardConfig,
) -> DatasetRef:
    mark = mark_for(f"shards/{name}", VERSION, shards, *inputs)
    done = mark.read(workspace, DatasetRef)
    if isinstance(done, DatasetRef) and _is_there(workspace, done):
        StepProgress(f"shards {name}", unit="samples").show(num_samples, num_samples)
        return done.model_copy(update={"reused": True})
    progress = StepProgress(f"shards {name}", unit="samples")
    counted = _Counted(progress, num_samples)
    with Stopwatch() as watch:
        for split, composed in splits.items():
            made = counted(composed())
            write_dataset(workspace.storage, name, split, made, target_bytes=shards.target_bytes)
    cost = add_up("shards", name, [watch.cost], num_items=num_samples, num_processed=num_samples)
    write_stats(workspace.storage, mark.key, cost)
    ref = open_index(workspace.storage, name).ref()
    written = DatasetRef(
        name=name,
        index_hash=ref.index_hash,
        num_samples=ref.num_samples,
        num_frames=ref.num_frames,
        num_shards=len(ref.shards),
    )
    mark.write(workspace, written)
    progress.show(num_samples, num_samples)
    logger.info("%s: %d samples with %d frames", name, ref.num_samples, ref.num_frames)
    return written


class _Counted:
    """Passes samples through and tells the progress of all splits together."""

    def __init__(self, progress: StepProgress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, samples: Iterable[SampleWithFrames]) -> Iterator[SampleWithFrames]:
        for sample in samples:
            yield sample
            self._done += 1
            self._progress(min(self._done, self._total), self._total)


def _packed(made: Iterable[tuple[Sample, np.ndarray]], quality: int) -> Iterator[SampleWithFrames]:
    return (SampleWithFrames(sample, pack_frames(frames, quality=quality)) for sample, frames in made)


def _is_there(workspace: Workspace, ref: DatasetRef) -> bool:
    """Whether the data set still lies there as it was written: its index, and every tar that it names."""
    try:
        index = open_index(workspace.storage, ref.name)
    except InputError:
        return False
    tars = {shard.name for shard in index.shards}
    present = {key.rpartition("/")[2] for key in workspace.storage.list(f"shards/{ref.name}/")}
    return index.hash == ref.index_hash and tars <= present
