"""Gather what a run left in its workspace and put it into one HTML page."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from prefect import task

from longvila.config.model import Settings
from longvila.config.recipe import Recipe
from longvila.curation.report import contact_sheet
from longvila.curation.scan import Scan, load_thumbs
from longvila.evaluation.results import EvalResult, read_result
from longvila.records import Caption, Question, Rejection, VideoRecord
from longvila.report import (
    ContactSheet,
    FunnelStep,
    Picture,
    QuestionExample,
    RejectionReason,
    ReportData,
    SheetEntry,
    Timing,
)
from longvila.report import build_report as write_report
from longvila.storage import Workspace
from longvila.training import StageOutcome
from tasks.contents import BuiltDataset
from tasks.marks import mark_for
from tasks.policy import HOUR_S
from tasks.refs import ManifestRef, WorkspaceRef, read_records, read_rejections
from tasks.summaries import evaluated, summary, tower_note

logger = logging.getLogger(__name__)
VERSION = 1
UNITS = {
    "fetch": ("sources", "{} files"),
    "validate": ("files", "{} videos"),
    "scan": ("videos", ""),
    "dedup": ("videos", ""),
    "clips": ("videos", "{} clips"),
    "captions": ("videos", "{} captions"),
    "questions": ("videos", "{} questions"),
    "filter-questions": ("questions", ""),
}
PICTURES_PER_VIDEO = 12
EXAMPLES_PER_KIND = 1


@task(timeout_seconds=HOUR_S, tags=["report"], task_run_name="report")
def build_report(
    workspace: WorkspaceRef,
    recipe: Recipe,
    dataset: BuiltDataset,
    outcomes: list[StageOutcome],
    evaluations: dict[str, str],
    seconds: dict[str, float],
    command: str = "",
) -> str:
    """Write ``report.html`` into the workspace and return its path."""
    opened = workspace.open()
    path = opened.root / "report.html"
    mark = mark_for("report", VERSION, recipe, _made_from(dataset, outcomes, evaluations))
    if path.is_file() and mark.read(opened, Written) is not None:
        return str(path)
    results = {name: read_result(Path(path)) for name, path in evaluations.items()}
    data = gather(opened, recipe, dataset, outcomes, results, seconds=seconds, command=command)
    write_report(data, path)
    if opened.is_remote:
        opened.storage.put_file("reports/report.html", path)
    mark.write(opened, Written(path=str(path)))
    return str(path)


class Written(Settings):
    """The marker of a report that was written."""

    path: str


def _made_from(
    dataset: BuiltDataset, outcomes: Sequence[StageOutcome], evaluations: Mapping[str, str]
) -> dict[str, object]:
    """What a report rests on, so that it is written again when any of it changes."""
    return {
        "manifests": [step.key for step in (*dataset.rejections, dataset.videos, dataset.questions)],
        "runs": [outcome.fingerprint for outcome in outcomes],
        "evaluations": sorted(evaluations.items()),
    }


def gather(
    workspace: Workspace,
    recipe: Recipe,
    dataset: BuiltDataset,
    outcomes: Sequence[StageOutcome],
    results: Mapping[str, EvalResult],
    *,
    seconds: Mapping[str, float],
    command: str,
) -> ReportData:
    """Everything that the report shows, read from where the run left it."""
    last = recipe.stages[-1].name
    checkpoint = workspace.root / "checkpoints" / last
    videos = read_records(workspace, dataset.videos, VideoRecord)
    return ReportData(
        title=f"{recipe.name}: the life of a model",
        subtitle=recipe.description,
        created=datetime.now(UTC),
        funnel=funnel(workspace, dataset),
        sheets=sheets(workspace, dataset, videos),
        questions=examples(workspace, dataset, videos),
        stages=tuple(summary(recipe.stage(outcome.stage), outcome) for outcome in outcomes),
        tower_note=tower_note(recipe),
        evaluations=evaluated(recipe, results),
        before="short_sft" if "short_sft" in results else None,
        after=last if last in results else None,
        parts=results[last].parts if last in results else (),
        timings=tuple(Timing(name=name, seconds=value) for name, value in seconds.items()),
        checkpoint=str(checkpoint),
        ask_command=f'longvila ask {checkpoint} VIDEO "QUESTION"',
        reproduce_command=command,
        credits=tuple(sorted({f"{video.title}, {video.author}, {video.license}" for video in videos})),
    )


def funnel(workspace: Workspace, dataset: BuiltDataset) -> tuple[FunnelStep, ...]:
    """What every step took in, let through and rejected."""
    rejected = read_rejections(workspace, dataset.rejections)
    return tuple(
        _funnel_step(step, [item for item in rejected if item.step == step.step]) for step in dataset.steps
    )


def _funnel_step(step: ManifestRef, rejected: Sequence[Rejection]) -> FunnelStep:
    unit, made = UNITS.get(step.step, ("items", ""))
    counts = Counter(item.reason for item in rejected)
    reasons = [
        RejectionReason(
            reason=reason,
            count=count,
            example=next(item.detail for item in rejected if item.reason == reason),
        )
        for reason, count in counts.most_common()
    ]
    return FunnelStep(
        step=step.step,
        unit=unit,
        taken_in=step.num_items,
        kept=step.num_items - step.num_rejections,
        made=made.format(step.num_results) if made else "",
        reasons=tuple(reasons),
    )


def sheets(
    workspace: Workspace, dataset: BuiltDataset, videos: Sequence[VideoRecord]
) -> tuple[ContactSheet, ...]:
    """One picture per clip of every video, with its caption."""
    captions = read_records(workspace, dataset.captions, Caption)
    scans = {scan.video_id: scan for scan in read_records(workspace, dataset.scans, Scan)}
    return tuple(
        ContactSheet(
            title=f"{video.title or video.source_id} ({video.split})",
            attribution=f"{video.author}, {video.license}",
            entries=_entries(workspace, scans[video.video_id], captions),
        )
        for video in sorted(videos, key=lambda video: video.source_id)
    )


def _entries(workspace: Workspace, scan: Scan, captions: Sequence[Caption]) -> tuple[SheetEntry, ...]:
    own = [caption for caption in captions if caption.video_id == scan.video_id]
    shown = contact_sheet(load_thumbs(workspace, scan), own, limit=PICTURES_PER_VIDEO)
    return tuple(
        SheetEntry(
            start_s=item.start_s,
            stop_s=item.stop_s,
            text=item.text,
            picture=Picture(data=item.jpeg, alt=f"frame at {item.time_s:.0f} s"),
        )
        for item in shown
    )


def examples(
    workspace: Workspace, dataset: BuiltDataset, videos: Sequence[VideoRecord]
) -> tuple[QuestionExample, ...]:
    """One held-out question of every kind, with its evidence."""
    titles = {video.video_id: video.title or video.source_id for video in videos}
    kinds: dict[str, list[Question]] = {}
    for question in read_records(workspace, dataset.questions, Question):
        if question.split == "heldout":
            kinds.setdefault(question.kind, []).append(question)
    return tuple(
        QuestionExample(
            video=titles[question.video_id],
            kind=kind,
            question=question.question,
            answer=question.answer,
            evidence_s=tuple((span.start_s, span.stop_s) for span in question.evidence),
        )
        for kind, asked in sorted(kinds.items())
        for question in asked[:EXAMPLES_PER_KIND]
    )
