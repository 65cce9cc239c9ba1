"""What is said of the videos: captions, summaries, questions, and the samples made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from longvila.config.language import CaptionConfig, QuestionConfig
from longvila.curation import (
    captioners,
    captions,
    filters,
    questions,
    samples,
    scan,
    summaries,
)
from longvila.curation.asking.outline import lines_of
from longvila.curation.asking.steps import Told, check_settings, checker_of, write_with_model
from longvila.curation.build.footage import Timeline, timelines
from longvila.curation.captioners import Captioner, Footage
from longvila.curation.language.opening import open_model
from longvila.curation.language.protocol import LanguageModel
from longvila.curation.on_screen_text import RapidReader, SeenText, texts_of_video
from longvila.curation.scan import Scan
from longvila.media.jpeg import FrameBlob
from longvila.records import Caption, Clip, Question, Sample, Split, VideoRecord
from longvila.storage import StepResult, Workspace, run_step, run_whole

Progress = Callable[[int, int], None] | None
VIDEOS_AT_ONCE = 16  # whose clips a language model is shown; each holds the frames that are shown


def caption_batch(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    scans: Sequence[Scan],
    made: Sequence[Clip],
    config: CaptionConfig,
    *,
    progress: Progress = None,
) -> StepResult[Caption]:
    """Describe every clip. A clip that could not be described is a rejection with the clip's id.

    Raises ``ConfigError`` and ``InputError`` for the model and its prompt, ``TransientError`` when an
    endpoint is down for all; what is said already stays said.
    """
    items = timelines(videos, scans, made=made)

    def run(
        captioner: Captioner, *, version: int, settings: dict[str, Any], workers: int
    ) -> StepResult[Caption]:
        return run_step(
            workspace,
            name=captioners.STEP,
            version=version,
            settings=settings,
            items=items,
            process=lambda item: captioners.caption_or_reject(captioner, _footage(workspace, item)),
            result_cls=Caption,
            progress=progress,
            retried_reasons=captioners.PASSING_REASONS,
            workers=workers,
        )

    if config.model is None:
        settings = config.decides_captions()
        measured = captioners.MeasuredClips(_text_reading(workspace, config))
        return run(measured, version=captions.VERSION, settings=settings, workers=1)
    threads = config.model.threads
    with ThreadPoolExecutor(threads, thread_name_prefix="caption") as pool:
        captioner = captioners.ModelCaptioner(open_model(config.model, workspace), config, pool)
        workers = min(threads, VIDEOS_AT_ONCE)
        return run(captioner, version=captioners.VERSION, settings=captioner.decides, workers=workers)


def _text_reading(workspace: Workspace, config: CaptionConfig) -> Callable[[Footage], list[SeenText]] | None:
    """How the text in a video's picture is read; none when the settings do not ask for it."""
    settings = config.read_text
    if settings is None:
        return None
    reader = RapidReader(settings)
    return lambda footage: texts_of_video(workspace, footage.video, footage.load_strip, reader, settings)


def summary_batch(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    scans: Sequence[Scan],
    captioned: Sequence[Caption],
    config: CaptionConfig,
    *,
    progress: Progress = None,
) -> StepResult[Caption]:
    """Tell chapters and whole videos from the captions of their clips. Raises as ``caption_batch``."""
    assert config.model is not None
    summariser = summaries.Summariser(open_model(config.model, workspace), config)
    return run_step(
        workspace,
        name=summaries.STEP,
        version=summaries.VERSION,
        settings=summariser.decides,
        items=timelines(videos, scans, captioned=captioned),
        process=lambda item: summariser.summarise(item.captions),
        result_cls=Caption,
        progress=progress,
        retried_reasons=captioners.PASSING_REASONS,
        workers=min(config.model.threads, VIDEOS_AT_ONCE),
    )


def question_batch(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    scans: Sequence[Scan],
    captioned: Sequence[Caption],
    config: QuestionConfig,
    *,
    model: LanguageModel | None = None,
    checker: LanguageModel | None = None,
    progress: Progress = None,
) -> StepResult[Question]:
    """Write the questions of every video, and check them by what the settings name.

    ``model`` and ``checker`` stand in for the models that ``config`` names. Raises what opening or asking
    them raises (``ConfigError``, ``InputError``, ``NetworkError``); what is done stays done.
    """
    model = model or (open_model(config.model, workspace) if config.model else None)
    checker = checker or (open_model(config.checks.model, workspace) if config.checks.model else None)
    items = timelines(videos, scans, captioned=captioned)
    if config.writer == "model":
        assert model is not None
        told = [Told(video_id=item.video_id, video=item.video, captions=item.captions) for item in items]
        return write_with_model(workspace, told, config, model=model, checker=checker, progress=progress)
    judging = checker_of(checker, config) if checker else None

    def process(item: Timeline) -> list[Question]:
        measures = scan.load_measures(workspace, item.scan)
        written = questions.write_questions(item.video, measures, item.scan.shots, item.captions, config)
        if judging is None:
            return written
        return judging.check(written, lines_of(item.captions), item.video.duration_s)

    return run_step(
        workspace,
        name="questions",
        version=questions.VERSION,
        settings=config.decides_questions() | (check_settings(config) if judging else {}),
        items=items,
        process=process,
        result_cls=Question,
        progress=progress,
    )


def filter_all(
    workspace: Workspace, videos: Sequence[VideoRecord], written: Sequence[Question]
) -> StepResult[Question]:
    """Keep the good questions, balanced over the whole set."""
    durations_s = {video.video_id: video.duration_s for video in videos}
    return run_whole(
        workspace,
        name=filters.STEP,
        version=filters.VERSION,
        settings={"durations_s": durations_s},
        inputs=written,
        compute=lambda: filters.filter_questions(written, durations_s),
        result_cls=Question,
    )


def question_samples(
    workspace: Workspace,
    videos: Sequence[VideoRecord],
    scans: Sequence[Scan],
    kept: Sequence[Question],
    *,
    split: Split,
    choice_answer: samples.ChoiceAnswer = "letter",
) -> Iterator[tuple[Sample, FrameBlob]]:
    """Yield the samples of one split with their frames, ready for shards."""
    scanned = {found.video_id: found for found in scans}
    return samples.question_samples(
        kept,
        {video.video_id: video for video in videos},
        lambda video_id: scan.load_strip(workspace, scanned[video_id]),
        split=split,
        choice_answer=choice_answer,
    )


def _footage(workspace: Workspace, item: Timeline) -> Footage:
    return Footage(
        video=item.video,
        clips=item.clips,
        shots=item.scan.shots,
        load_measures=lambda: scan.load_measures(workspace, item.scan),
        load_strip=lambda: scan.load_strip(workspace, item.scan),
    )
