"""What a report is made from: plain data and image bytes, gathered by whoever ran the flow."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field

from longvila.evaluation.results import EvalResult, LossCurve, PartSize
from longvila.records import Record


class ReportRecord(Record):
    """The base of this package's rows; bytes survive a JSON round trip as base64."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class Picture(ReportRecord):
    """An image that is put into the page itself."""

    data: bytes = Field(description="PNG, JPEG or SVG; the kind is read from the bytes")
    alt: str = Field(description="what it shows, for those who cannot see it")
    caption: str = ""


class Verdict(ReportRecord):
    """One claim and whether this run bears it out. ``passed`` is none for a plain fact."""

    claim: str
    passed: bool | None = None
    evidence: str = Field(default="", description="the figures that it rests on")


class RejectionReason(ReportRecord):
    """Why items were rejected, how many, and one of them as an example."""

    reason: str
    count: int = Field(gt=0)
    example: str = ""


class FunnelStep(ReportRecord):
    """One step of the data build. ``taken_in = kept + rejected``, or the report says that it does not add up.

    A step that makes other things of its items (videos → shots) says what in ``made``.
    """

    step: str
    unit: str = "videos"
    taken_in: int = Field(ge=0)
    kept: int = Field(ge=0)
    made: str = ""
    reasons: tuple[RejectionReason, ...] = ()

    @property
    def rejected(self) -> int:
        """Items that left the step as rejections."""
        return sum(reason.count for reason in self.reasons)

    @property
    def adds_up(self) -> bool:
        """Whether every item that entered left the step."""
        return self.taken_in == self.kept + self.rejected


class SheetEntry(ReportRecord):
    """One shot or clip of a contact sheet."""

    start_s: float
    stop_s: float
    text: str = ""
    picture: Picture | None = None


class ContactSheet(ReportRecord):
    """One video at a glance: a picture of all of it, or one per entry, with what is said of them."""

    title: str
    attribution: str = ""
    picture: Picture | None = None
    entries: tuple[SheetEntry, ...] = ()


class QuestionExample(ReportRecord):
    """A question as it was written, with the spans that its answer rests on."""

    video: str
    kind: str
    question: str
    answer: str
    evidence_s: tuple[tuple[float, float], ...] = ()
    predicted: str | None = Field(
        default=None, description="what the final model answered, where it was asked"
    )
    pictures: tuple[Picture, ...] = ()


class StageSummary(ReportRecord):
    """How one training stage went."""

    name: str
    trains: str
    data: str = ""
    steps: int
    seconds: float
    max_frames: int | None = None
    max_tokens: int | None = None
    rope_theta: float | None = None
    parallel: str = Field(default="", description="e.g. dp 2 × ulysses 1 × ring 1, ZeRO 2")
    restarts: int = 0
    losses: LossCurve | None = None


class Evaluated(ReportRecord):
    """One checkpoint's evaluation: of a stage, or of a control that a stage is compared with."""

    title: str
    role: Literal["stage", "control"] = "stage"
    result: EvalResult
    trained_frames: int | None = Field(
        default=None, description="longest video that it was trained on; drawn as a line"
    )
    note: str = ""


class Timing(ReportRecord):
    """Wall time of one part of the run."""

    name: str
    seconds: float


class ReportData(ReportRecord):
    """Everything that one report shows. Parts that are empty are left out of the page."""

    title: str
    subtitle: str = ""
    created: datetime
    summary: tuple[Verdict, ...] = Field(
        default=(), description="verdicts of the caller's, put before the measured ones"
    )
    funnel: tuple[FunnelStep, ...] = ()
    sheets: tuple[ContactSheet, ...] = ()
    questions: tuple[QuestionExample, ...] = ()
    stages: tuple[StageSummary, ...] = ()
    tower_note: str = Field(
        default="", description="how the tower was prepared, where it was not pre-trained"
    )
    evaluations: tuple[Evaluated, ...] = Field(default=(), description="in the order in which they are shown")
    before: str | None = Field(
        default=None, description="name of the result before the context was extended: stage 3"
    )
    after: str | None = Field(default=None, description="name of the final result: stage 5")
    parts: tuple[PartSize, ...] = ()
    timings: tuple[Timing, ...] = ()
    checkpoint: str = ""
    ask_command: str = ""
    reproduce_command: str = ""
    credits: tuple[str, ...] = ()

    def evaluation(self, name: str | None) -> Evaluated | None:
        """Return the evaluation of that name, or none."""
        return next((item for item in self.evaluations if item.result.name == name), None)
