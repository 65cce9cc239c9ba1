"""What the page about one build is made from: counts, tables, and the pictures that were chosen for it."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from longvila.report.content import FunnelStep, Picture, ReportRecord, Verdict


class Bar(ReportRecord):
    """One value of a distribution and how often it occurs."""

    value: str
    count: int = Field(ge=0)


class Distribution(ReportRecord):
    """How often each value occurs. ``note`` says what is counted, or how even it should be."""

    name: str
    bars: tuple[Bar, ...]
    note: str = ""

    @property
    def total(self) -> int:
        """All that was counted."""
        return sum(bar.count for bar in self.bars)


class SplitCount(ReportRecord):
    """What lies in one split."""

    split: str
    videos: int
    hours: float
    clips: int
    questions: int


class ShardSet(ReportRecord):
    """One data set that the build wrote."""

    name: str
    address: str
    num_shards: int
    num_samples: int
    num_frames: int
    size_bytes: int


class ShotPicture(ReportRecord):
    """One shot, or the part of it that lies in a clip."""

    start_s: float
    stop_s: float
    transition: str = Field(description="how the shot begins: start, cut, fade, dissolve")
    begins_here: bool = Field(description="whether the shot begins inside the clip")
    picture: Picture | None = None


class ClipEntry(ReportRecord):
    """One clip of a contact sheet, what was said of it, and its first shots."""

    start_s: float
    stop_s: float
    text: str
    shots: tuple[ShotPicture, ...] = ()
    num_shots: int = 0


class Segment(ReportRecord):
    """One shot of a time line, in percent of the video."""

    start: float
    width: float
    transition: str
    label: str


class VideoSheet(ReportRecord):
    """One video: its time line of shots, and some of its clips."""

    title: str
    split: str
    attribution: str
    duration_s: float
    segments: tuple[Segment, ...]
    num_shots: int
    num_clips: int
    clips: tuple[ClipEntry, ...]


class ReadExample(ReportRecord):
    """A question to read, with pictures of what its answer rests on."""

    video: str
    split: str
    kind: str
    form: str
    question: str
    answer: str
    options: tuple[str, ...] = ()
    window_s: tuple[float, float]
    evidence_s: tuple[tuple[float, float], ...]
    writer: str
    pictures: tuple[Picture, ...] = ()


class KindRow(ReportRecord):
    """One kind of question: how many per split and form, and what a blind guess gets right."""

    kind: str
    train_open: int
    train_choice: int
    heldout_open: int
    heldout_choice: int
    blind: float | None = Field(default=None, description="of held-out questions, else of training ones")
    commonest: tuple[Bar, ...] = Field(default=(), description="the commonest answers")
    num_answers: int = 0

    @property
    def total(self) -> int:
        """Questions of the kind."""
        return self.train_open + self.train_choice + self.heldout_open + self.heldout_choice


class StageCost(ReportRecord):
    """What one step cost. Times are none where the step left no figures behind."""

    step: str
    unit: str
    num_items: int
    wall_s: float | None = Field(default=None, description="of all items added up, in whichever run")
    cpu_s: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    estimated: bool = Field(default=False, description="some server did not count its tokens; we did")

    @property
    def items_per_s(self) -> float | None:
        """Items per second of work; none where that is not known."""
        return self.num_items / self.wall_s if self.wall_s else None


class DuplicateExample(ReportRecord):
    """A video that was left out because another shows the same, both pictures side by side."""

    source: str
    kept: str
    reason: str
    detail: str
    picture: Picture | None = None
    kept_picture: Picture | None = None


class TermsRow(ReportRecord):
    """The videos of one author under one licence."""

    license: str
    author: str
    videos: int
    hours: float
    example: str


class RejectedItem(ReportRecord):
    """One rejection as it is listed."""

    step: str
    item: str
    source: str
    reason: str
    detail: str


class Maker(ReportRecord):
    """Who wrote what: a captioner or a question writer, with its model and prompt."""

    role: str
    name: str
    model: str
    prompt_id: str
    count: int


class BuildReport(ReportRecord):
    """Everything that the page about one build shows."""

    name: str
    description: str = ""
    created: datetime
    version: str
    checks: tuple[Verdict, ...] = ()
    shard_sets: tuple[ShardSet, ...] = ()
    splits: tuple[SplitCount, ...] = ()
    funnel: tuple[FunnelStep, ...] = ()
    sheets: tuple[VideoSheet, ...] = ()
    num_videos: int = 0
    distributions: tuple[Distribution, ...] = ()
    kinds: tuple[KindRow, ...] = ()
    examples: tuple[ReadExample, ...] = ()
    stages: tuple[StageCost, ...] = ()
    duplicates: tuple[DuplicateExample, ...] = ()
    num_duplicates: int = 0
    terms: tuple[TermsRow, ...] = ()
    makers: tuple[Maker, ...] = ()
    step_versions: dict[str, int] = Field(default_factory=dict)
    settings: str = Field(default="", description="the recipe's data section as YAML")
    rejections: tuple[RejectedItem, ...] = ()
    num_rejections: int = 0

    @property
    def hours(self) -> float:
        """Hours of video that were kept."""
        return sum(split.hours for split in self.splits)
