"""Writing and checking questions with a language model as two steps that resume video by video.

The first keeps what the model wrote as it is (``manifests/ask-model``), the second makes questions of it and
checks them (``manifests/questions``): changed checks ask nothing anew. The checks by a model are not made
without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from longvila.config.language import QuestionConfig
from longvila.curation.asking import checks, judge, writer
from longvila.curation.asking.checks import questions_of
from longvila.curation.asking.judge import Checker, load_check_prompts
from longvila.curation.asking.outline import lines_of
from longvila.curation.asking.sheet import ANSWERED, Sheet
from longvila.curation.asking.writer import ModelWriter, load_prompts
from longvila.curation.language.protocol import LanguageModel
from longvila.errors import ItemError
from longvila.records import Caption, Question, Record, VideoRecord
from longvila.storage import StepResult, Workspace, run_step

ASK_STEP, STEP = "ask-model", "questions"
VIDEOS_AT_ONCE = 16
Progress = Callable[[int, int], None] | None


class Told(Record):
    """A video and its captions."""

    video_id: str
    video: VideoRecord
    captions: tuple[Caption, ...]


class Written(Record):
    """What a model wrote about a video, beside its captions."""

    video_id: str
    told: Told
    sheet: Sheet


def write_with_model(
    workspace: Workspace,
    told: Sequence[Told],
    config: QuestionConfig,
    *,
    model: LanguageModel,
    checker: LanguageModel | None = None,
    progress: Progress = None,
) -> StepResult[Question]:
    """Ask ``model`` about every video, make questions of its answers, and check them.

    Raises ``NetworkError`` when a model does not answer; what is done stays done.
    """
    with ThreadPoolExecutor(config.threads, thread_name_prefix="ask") as pool:
        sheets = _ask(
            workspace, told, config, ModelWriter(model, config, load_prompts(config), pool=pool), progress
        )
        checker_pooled = checker_of(checker or model, config, pool=pool)
        return _check(workspace, told, sheets, config, checker_pooled, progress)


def _ask(
    workspace: Workspace,
    told: Sequence[Told],
    config: QuestionConfig,
    asker: ModelWriter,
    progress: Progress,
) -> list[Sheet]:
    """Return what the model wrote about every video; no video is rejected here."""
    return run_step(
        workspace,
        name=ASK_STEP,
        version=writer.VERSION,
        settings={
            "questions": config.decides_questions(),
            "prompts": asker.prompt_ids,
        },
        items=told,
        process=lambda item: asker.ask(item.video, item.captions),
        result_cls=Sheet,
        progress=progress,
        workers=min(config.threads, VIDEOS_AT_ONCE),
    ).results


def _check(
    workspace: Workspace,
    told: Sequence[Told],
    sheets: Sequence[Sheet],
    config: QuestionConfig,
    checker: Checker,
    progress: Progress,
) -> StepResult[Question]:
    """Make questions of what was written about every video, and check them."""
    return run_step(
        workspace,
        name=STEP,
        version=writer.VERSION + judge.VERSION,
        settings=check_settings(config) | {"questions": config.decides_questions()},
        items=[
            Written(video_id=item.video_id, told=item, sheet=sheet)
            for item, sheet in zip(told, sheets, strict=True)
        ],
        process=lambda item: _questions(item, config, checker),
        result_cls=Question,
        progress=progress,
        workers=min(config.threads, VIDEOS_AT_ONCE),
    )


def checker_of(model: LanguageModel, config: QuestionConfig, *, pool: Executor | None = None) -> Checker:
    """Return what checks questions with ``model``."""
    return Checker(
        model,
        config.checks,
        load_check_prompts(),
        caption_tokens=config.caption_tokens,
        pool=pool,
    )


def check_settings(config: QuestionConfig) -> dict[str, object]:
    """What decides how questions are checked, the prompts too."""
    prompts = {name: prompt.id for name, prompt in load_check_prompts().items()}
    return {"checks": config.decides_checks(), "prompts": prompts, "version": checks.VERSION}


def _questions(item: Written, config: QuestionConfig, checker: Checker) -> list[Question]:
    video, sheet = item.told.video, item.sheet
    lines = lines_of(item.told.captions)
    if not lines:
        raise ItemError("no-captions", "nothing is said of any clip of this video")
    if not any(asked.outcome == ANSWERED for asked in sheet.asked):
        first = sheet.asked[0]
        raise ItemError(first.outcome, f"all {len(sheet.asked)} requests failed; the first: {first.detail}")
    questions = questions_of(sheet, video, lines, config, writer=writer.WRITER)
    if not questions:
        used = sheet.usage
        raise ItemError(
            "no-questions",
            f"{len(sheet.asked)} requests gave no question ({used.tokens_in} tokens in, "
            f"{used.tokens_out} out, {used.cost_usd:.4f} USD)",
        )
    return checker.check(questions, lines, video.duration_s)
