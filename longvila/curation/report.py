"""What a build reports: how many items each step let through, and what they look like, without any HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from longvila.curation.filters import BlindBaseline, blind_baselines
from longvila.curation.scan_file import FrameStrip
from longvila.records import Caption, Question, Record, Rejection, Shot
from longvila.storage import StepResult


class FunnelRow(Record):
    """One step: every item that entered left it as a result or was rejected with a reason."""

    step: str
    entered: int
    passed: int
    rejected: int
    results: int  # a step may make several results of one item
    reasons: dict[str, int]


class Distribution(Record):
    """How often each value occurs."""

    name: str
    counts: dict[str, int]


class SheetPicture(Record):
    """One picture of a contact sheet: when it is shown, and what is said of it."""

    video_id: str
    start_s: float
    stop_s: float
    time_s: float
    jpeg: bytes
    text: str


def funnel_row(step: str, *, entered: int, result: StepResult) -> FunnelRow:
    """Add up one step."""
    return funnel_row_of(step, entered=entered, results=len(result.results), rejections=result.rejections)


def funnel_row_of(step: str, *, entered: int, results: int, rejections: Sequence[Rejection]) -> FunnelRow:
    """Add up one step from its counts."""
    reasons = Counter(rejection.reason for rejection in rejections)
    return FunnelRow(
        step=step,
        entered=entered,
        passed=entered - len(rejections),
        rejected=len(rejections),
        results=results,
        reasons=dict(sorted(reasons.items())),
    )


def distributions(shots: Sequence[Shot], questions: Sequence[Question]) -> list[Distribution]:
    """Return shot lengths, transitions, questions per kind and split, and answers per kind."""
    lengths = Counter(_length_bin(shot.stop_s - shot.start_s) for shot in shots)
    found = [
        Distribution(name="shot length", counts={name: lengths.get(name, 0) for name, _ in _LENGTH_BINS}),
        Distribution(name="transition", counts=_counted(shot.transition for shot in shots)),
        Distribution(name="questions, train", counts=_kinds(questions, "train")),
        Distribution(name="questions, heldout", counts=_kinds(questions, "heldout")),
    ]
    for kind in sorted({question.kind for question in questions}):
        answers = _counted(question.answer for question in questions if question.kind == kind)
        found.append(Distribution(name=f"answers, {kind}", counts=answers))
    return found


def contact_sheet(thumbs: FrameStrip, captions: Sequence[Caption], *, limit: int = 24) -> list[SheetPicture]:
    """Return the middle pictures of up to ``limit`` clips of one video, evenly chosen, with captions."""
    step = max(1, -(-len(captions) // limit))
    pictures = []
    for caption in captions[::step]:
        middle_s = (caption.start_s + caption.stop_s) / 2
        index = int(abs(thumbs.times_s - middle_s).argmin())
        pictures.append(
            SheetPicture(
                video_id=caption.video_id,
                start_s=caption.start_s,
                stop_s=caption.stop_s,
                time_s=float(thumbs.times_s[index]),
                jpeg=thumbs.part(index, index + 1).data,
                text=caption.text,
            )
        )
    return pictures


def baselines(questions: Sequence[Question]) -> list[BlindBaseline]:
    """Return what a blind guesser gets right, per kind and split."""
    return blind_baselines(questions)


_LENGTH_BINS = (
    ("< 1 s", 1.0),
    ("1–2 s", 2.0),
    ("2–4 s", 4.0),
    ("4–8 s", 8.0),
    ("8–16 s", 16.0),
    ("≥ 16 s", 1e9),
)


def _length_bin(length_s: float) -> str:
    return next(name for name, stop_s in _LENGTH_BINS if length_s < stop_s)


def _kinds(questions: Sequence[Question], split: str) -> dict[str, int]:
    return _counted(question.kind for question in questions if question.split == split)


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
