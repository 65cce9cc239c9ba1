"""From what the data build reports to what the page shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from longvila.curation.report import FunnelRow, SheetPicture
from longvila.curation.scan_file import FrameStrip
from longvila.evaluation.results import QaExample
from longvila.records import Question, Rejection
from longvila.report.content import (
    ContactSheet,
    FunnelStep,
    Picture,
    QuestionExample,
    RejectionReason,
    SheetEntry,
)

PICTURES_PER_QUESTION = 4


def funnel_step(
    row: FunnelRow, *, unit: str = "videos", makes: str = "", rejections: Iterable[Rejection] = ()
) -> FunnelStep:
    """Return one step of the funnel, with one of its rejections as the example of each reason.

    ``makes`` names the results of a step that makes other things of its items, e.g. ``shots``.
    """
    examples: dict[str, str] = {}
    for rejection in rejections:
        named = f"{rejection.source}: {rejection.detail}" if rejection.source else rejection.detail
        examples.setdefault(rejection.reason, named)
    return FunnelStep(
        step=row.step,
        unit=unit,
        taken_in=row.entered,
        kept=row.passed,
        made=f"{row.results} {makes}" if makes else "",
        reasons=tuple(
            RejectionReason(reason=reason, count=count, example=examples.get(reason, ""))
            for reason, count in row.reasons.items()
        ),
    )


def contact_sheet(title: str, pictures: Sequence[SheetPicture], *, attribution: str = "") -> ContactSheet:
    """Return one video's contact sheet from the pictures of its clips."""
    entries = tuple(
        SheetEntry(
            start_s=picture.start_s,
            stop_s=picture.stop_s,
            text=picture.text,
            picture=Picture(data=picture.jpeg, alt=f"frame at {picture.time_s:.1f} s"),
        )
        for picture in pictures
    )
    return ContactSheet(title=title, attribution=attribution, entries=entries)


def question_examples(
    questions: Sequence[Question],
    *,
    titles: Mapping[str, str],
    strips: Mapping[str, FrameStrip] | None = None,
    answered: Sequence[QaExample] = (),
    limit: int = 12,
) -> tuple[QuestionExample, ...]:
    """Return up to ``limit`` questions, kind after kind: each is shown before any comes twice.

    With ``answered`` only questions that the model was asked are shown, with what it said. ``strips`` (a
    video's frames) gives pictures of the evidence.
    """
    said = {example.question_id: example.said for example in answered}
    asked = [question for question in questions if not said or question.question_id in said]
    by_kind: dict[str, list[Question]] = {}
    for question in sorted(asked, key=lambda question: question.question_id):
        by_kind.setdefault(question.kind, []).append(question)
    rounds = max((len(some) for some in by_kind.values()), default=0)
    chosen = [some[i] for i in range(rounds) for some in by_kind.values() if i < len(some)][:limit]
    return tuple(
        QuestionExample(
            video=titles.get(question.video_id, question.video_id),
            kind=question.kind,
            question=question.question,
            answer=question.answer,
            evidence_s=tuple((evidence.start_s, evidence.stop_s) for evidence in question.evidence),
            predicted=said.get(question.question_id),
            pictures=_evidence_pictures(question, (strips or {}).get(question.video_id)),
        )
        for question in chosen
    )


def _evidence_pictures(question: Question, strip: FrameStrip | None) -> tuple[Picture, ...]:
    """Frames spread evenly over the spans that an answer rests on."""
    if strip is None:
        return ()
    inside = [
        i
        for i, time_s in enumerate(strip.times_s)
        if any(evidence.start_s <= time_s < evidence.stop_s for evidence in question.evidence)
    ]
    step = max(1, -(-len(inside) // PICTURES_PER_QUESTION))
    return tuple(
        Picture(data=strip.part(i, i + 1).data, alt=f"frame at {strip.times_s[i]:.1f} s")
        for i in inside[::step]
    )
