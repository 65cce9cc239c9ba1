"""The measured writer: questions about a video that are answered by measuring it, and the evidence for each.

A question is written only where its measurement is clear (see ``measure``). Those of the kinds here are
about a window, their answers single words of small closed sets; no answer stands in its question, and a
question ends in the word that says what is asked. Those about the clips of the whole video are in
``asking.measured``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from longvila.config.language import QuestionConfig
from longvila.curation import measure
from longvila.curation.asking.measured import WRITERS, clip_drafts
from longvila.curation.asking.options import form_of, options_of, options_problem
from longvila.curation.asking.outline import lines_of, numbered, time_text
from longvila.curation.asking.sheet import Draft as ClipDraft
from longvila.curation.colours import COLOURS
from longvila.curation.measure import Span
from longvila.curation.sampling import Measures
from longvila.records import Caption, Evidence, Question, Shot, VideoRecord, content_id

VERSION = 1
WRITER = f"measured-{VERSION}"
DESCRIBE = "Describe this video from beginning to end, with times."
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


class MeasuredWriter:
    """Writes questions about one video from what was measured of it."""

    name = WRITER

    def __init__(self, measures: Measures, shots: Sequence[Shot], config: QuestionConfig) -> None:
        self._measures, self._config = measures, config
        self._cuts_s = tuple(shot.start_s for shot in shots if shot.index > 0)

    def write(self, video: VideoRecord, captions: Sequence[Caption]) -> list[Question]:
        """Write all that is clear.

        ``max_per_video`` is kept by taking the first of an order that is random and always the same.
        """
        questions = [*self._of_windows(video, captions), *self._of_clips(video, captions)]
        chosen = sorted(questions, key=lambda question: question.question_id)[: self._config.max_per_video]
        keep = {question.question_id for question in chosen}
        kept = [question for question in questions if question.question_id in keep]
        return kept + (_summary(video, captions) if self._config.summaries else [])

    def _of_windows(self, video: VideoRecord, captions: Sequence[Caption]) -> Iterator[Question]:
        kinds = [kind for kind in self._config.kinds or KINDS if kind in KINDS]
        for start_s, stop_s in windows(video.duration_s, self._config):
            span = Span(self._measures, start_s, stop_s, self._cuts_s)
            for kind in kinds:
                for draft in KINDS[kind].write(span):
                    question = _question(video, kind, draft, (start_s, stop_s), captions)
                    yield _in_form(question, KINDS[kind].answers, self._config)

    def _of_clips(self, video: VideoRecord, captions: Sequence[Caption]) -> Iterator[Question]:
        wanted = [kind for kind in self._config.kinds if kind in WRITERS]
        drafts = clip_drafts(self._measures, self._cuts_s, captions, seed=video.video_id) if wanted else ()
        for draft in drafts:
            if draft.kind in wanted:
                question = _clip_question(video, draft, captions)
                yield _in_form(question, draft.distractors, self._config)


def write_questions(
    video: VideoRecord,
    measures: Measures,
    shots: Sequence[Shot],
    captions: Sequence[Caption],
    config: QuestionConfig,
) -> list[Question]:
    """Write the questions about one video: see ``MeasuredWriter``."""
    return MeasuredWriter(measures, shots, config).write(video, captions)


def windows(duration_s: float, config: QuestionConfig) -> list[Times]:
    """Return the spans to ask about: every length at every stride.

    It is the whole video when no length is named, or when the video is shorter than all of them.
    """
    found: list[Times] = []
    for length_s in config.window_s:
        count = int((duration_s - length_s) / config.stride_s + 1e-9) + 1 if duration_s >= length_s else 0
        found += [(i * config.stride_s, i * config.stride_s + length_s) for i in range(count)]
    return found or [(0.0, duration_s)]


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


def _clip_question(video: VideoRecord, draft: ClipDraft, captions: Sequence[Caption]) -> Question:
    """Make a question about the clips of the whole video; ``draft.clips`` are their numbers."""
    spans = {line.number: line for line in numbered(captions)}
    shown = [spans[number] for number in sorted(draft.clips)]
    return Question(
        question_id=content_id("question", WRITER, video.video_id, draft.kind, draft.question),
        video_id=video.video_id,
        kind=draft.kind,
        question=draft.question,
        answer=draft.answer,
        start_s=0.0,
        stop_s=video.duration_s,
        evidence=tuple(
            Evidence(start_s=line.start_s, stop_s=min(line.stop_s, video.duration_s), clip_id=line.clip_id)
            for line in shown
        ),
        writer=WRITER,
        split=video.split,
    )


def _in_form(question: Question, wrong: Sequence[str], config: QuestionConfig) -> Question:
    """Give a question its options where it is to be of the form choice."""
    if form_of(question.question_id, config.forms) == "open":
        return question
    others = [text for text in wrong if text != question.answer]
    options = options_of(
        question.answer, others, num_options=config.num_options, seed=question.question_id
    )  # fmt: skip
    if "open" in config.forms and options_problem(question.answer, options):
        return question
    return question.model_copy(update={"form": "choice", "options": options})


def _summary(video: VideoRecord, captions: Sequence[Caption]) -> list[Question]:
    """Tell the whole video by what its captions say, clip by clip."""
    lines = lines_of(captions)
    told = " ".join(f"From {time_text(x.start_s)} to {time_text(x.stop_s)}: {x.text}" for x in lines)
    if not told:
        return []
    draft = ClipDraft(kind="summary", question=DESCRIBE, answer=told, clips=tuple(x.number for x in lines))
    return [_clip_question(video, draft, captions)]


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
