"""The measured writer: questions with one-word answers about a window of a video, and the evidence for each.

A question is written only where its measurement is clear (see ``measure``). Answers come from small closed
sets, no answer stands in its question, and a question ends in the word that says what is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from longvila.config.language import QuestionConfig
from longvila.curation import measure
from longvila.curation.colours import COLOURS
from longvila.curation.measure import Span
from longvila.curation.sampling import Measures
from longvila.records import Caption, Evidence, Question, Shot, VideoRecord, content_id

VERSION = 1
WRITER = f"measured-{VERSION}"
_PLACED_COLOURS = ("white", "grey", "yellow", "green", "blue", "brown", "orange", "black")
_STORY_S = 20.0  # what is shorter has no story
_STORY_LEAD = 2  # shots

Times = tuple[float, float]


class Draft(NamedTuple):
    """A question before it is a record: its text, its answer and the spans that show it."""

    question: str
    answer: str
    evidence: tuple[Times, ...]


class Kind(NamedTuple):
    """One kind of question: the words it may be answered with, and what writes it."""

    answers: tuple[str, ...]
    write: Callable[[Span], Iterator[Draft]]


def write_questions(
    video: VideoRecord,
    measures: Measures,
    shots: Sequence[Shot],
    captions: Sequence[Caption],
    config: QuestionConfig,
) -> list[Question]:
    """Write all questions about the windows of one video that are clear.

    ``max_per_video`` is kept by taking the first of an order that is random and always the same.
    """
    kinds = config.kinds or tuple(KINDS)
    cuts_s = tuple(shot.start_s for shot in shots if shot.index > 0)
    questions = []
    for start_s, stop_s in windows(video.duration_s, config):
        span = Span(measures, start_s, stop_s, cuts_s)
        for kind in kinds:
            for draft in KINDS[kind].write(span):
                questions.append(_question(video, kind, draft, (start_s, stop_s), captions))
    chosen = sorted(questions, key=lambda question: question.question_id)[: config.max_per_video]
    keep = {question.question_id for question in chosen}
    return [question for question in questions if question.question_id in keep]


def windows(duration_s: float, config: QuestionConfig) -> list[Times]:
    """Return the spans to ask about: every length at every stride, or the whole video when none is named."""
    if not config.window_s:
        return [(0.0, duration_s)]
    found = []
    for length_s in config.window_s:
        count = int((duration_s - length_s) / config.stride_s + 1e-9) + 1 if duration_s >= length_s else 0
        found += [(i * config.stride_s, i * config.stride_s + length_s) for i in range(count)]
    return found


def _question(
    video: VideoRecord, kind: str, draft: Draft, window: Times, captions: Sequence[Caption]
) -> Question:
    start_s, stop_s = window
    return Question(
        question_id=content_id("question", WRITER, video.video_id, kind, draft.question, start_s, stop_s),
        video_id=video.video_id,
        kind=kind,
        question=draft.question,
        answer=draft.answer,
        options=KINDS[kind].answers,
        start_s=start_s,
        stop_s=stop_s,
        evidence=tuple(
            Evidence(start_s=first, stop_s=last, clip_id=_clip_at(captions, first, last))
            for first, last in draft.evidence
        ),
        writer=WRITER,
        split=video.split,
    )


def _clip_at(captions: Sequence[Caption], start_s: float, stop_s: float) -> str | None:
    """Return the clip that covers most of a span."""
    shared = [(min(c.stop_s, stop_s) - max(c.start_s, start_s), c.clip_id) for c in captions]
    best = max(shared, default=(0.0, None), key=lambda pair: pair[0])
    return best[1] if best[0] > 0 else None


def _whole(question: str, judge: Callable[[Span], str | None]) -> Callable[[Span], Iterator[Draft]]:
    """Make a writer whose evidence is the whole window."""

    def write(span: Span) -> Iterator[Draft]:
        answer = judge(span)
        if answer is not None:
            yield Draft(question, answer, ((span.start_s, span.stop_s),))

    return write


def _part(
    question: str, start: float, stop: float, judge: Callable[[Span], str | None]
) -> Callable[[Span], Iterator[Draft]]:
    """Make a writer that looks at a part of the window only."""

    def write(span: Span) -> Iterator[Draft]:
        part = span.part(start, stop)
        answer = judge(part)
        if answer is not None:
            yield Draft(question, answer, ((part.start_s, part.stop_s),))

    return write


def _extreme(question: str, *, darkest: bool) -> Callable[[Span], Iterator[Draft]]:
    def write(span: Span) -> Iterator[Draft]:
        answer = measure.part_of_extreme(span, darkest=darkest)
        if answer is not None:
            third = measure.PARTS.index(answer)
            part = span.part(third / 3, (third + 1) / 3)
            yield Draft(question, answer, ((part.start_s, part.stop_s),))

    return write


def _places(span: Span) -> Iterator[Draft]:
    for colour in _PLACED_COLOURS:
        answer = measure.colour_place(span, colour)
        if answer is not None:
            yield Draft(f"on which side is most {colour}", answer, ((span.start_s, span.stop_s),))


def _returns(span: Span) -> Iterator[Draft]:
    found = measure.view_returns(span)
    if found is not None:
        yield Draft("does an earlier view return", found[0], found[1])


def _shots(span: Span) -> Iterator[Draft]:
    answer = measure.shot_count(span)
    if answer is not None:
        yield Draft("what is the number of shots", answer, tuple(span.shots()))


def _synopsis(span: Span) -> Iterator[Draft]:
    """Ask for the colour that is the main one in most shots."""
    shots = span.shots()
    if span.stop_s - span.start_s < _STORY_S or len(shots) < 3:
        return
    colours = [
        measure.main_colour(piece)
        for start_s, stop_s in shots
        if (piece := Span(span.measures, start_s, stop_s, span.cuts_s)).num_samples
    ]
    counts = sorted(((colours.count(c), c) for c in set(colours) if c is not None), reverse=True)
    if counts and counts[0][0] - (counts[1][0] if len(counts) > 1 else 0) >= _STORY_LEAD:
        yield Draft("which colour leads most of the story", counts[0][1], tuple(shots))


KINDS: dict[str, Kind] = {
    "brightness": Kind(measure.BRIGHTNESS, _whole("what is the overall lighting", measure.brightness)),
    "main_colour": Kind(COLOURS, _whole("what is the main colour", measure.main_colour)),
    "colour_place": Kind(measure.SIDES, _places),
    "lightest_side": Kind(measure.SIDES, _whole("which side is lightest", measure.lightest_side)),
    "change": Kind(measure.CHANGE, _whole("how does the light change", measure.light_change)),
    "start_colour": Kind(
        COLOURS, _part("what is the main colour at the start", 0, 0.25, measure.main_colour)
    ),
    "end_colour": Kind(COLOURS, _part("what is the main colour at the end", 0.75, 1, measure.main_colour)),
    "when_darkest": Kind(measure.PARTS, _extreme("when is it darkest", darkest=True)),
    "when_lightest": Kind(measure.PARTS, _extreme("when is it brightest", darkest=False)),
    "motion": Kind(measure.MOTION, _whole("how strong is the motion", measure.motion)),
    "texture": Kind(measure.TEXTURE, _whole("what is the texture", measure.texture)),
    "camera": Kind(measure.DIRECTIONS, _whole("which way does the camera move", measure.camera_direction)),
    "count": Kind(measure.COUNTS, _shots),
    "recurs": Kind(measure.YES_NO, _returns),
    "synopsis": Kind(COLOURS, _synopsis),
}
