"""Questions about the clips of a whole video whose answers are measured: times, orders, numbers, comparisons.

A clip is spoken of by what tells it apart, the colour that it alone is mostly in, or by its time. Where a
measurement lies between two words (see ``measure``), nothing is asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, groupby, pairwise
from typing import NamedTuple

from longvila.curation import measure
from longvila.curation.asking.compose import CANNOT_TELL, MAX_EVIDENCE, order_of, other_numbers, other_spans
from longvila.curation.asking.outline import Line, numbered, span_text, time_text
from longvila.curation.asking.sheet import Draft
from longvila.curation.asking.wording import clean, same_words
from longvila.curation.colours import COLOURS
from longvila.curation.measure import Span
from longvila.curation.sampling import Measures
from longvila.records import Caption, content_id

_ABSENT_SHARE, _RARE_SHARE = (
    0.03,
    0.2,
)  # of the picture: a colour that nothing, or no other clip, is mostly in
_LIGHT_STEP = 0.09  # of luma, between two clips that differ in light
_MAX_LIGHT_SAME = 0.03
_EXTREME_LEAD = 0.05
_MAX_OF_A_KIND = 6  # questions of one video that could be asked of any of its clips
_MAX_COMPARED = 40  # clips
_MOTION = {"still": "almost nothing moves", "slow": "things move a little", "fast": "things move a lot"}
_LIGHT = ("darker", "about as light", "brighter")
NUM_WRONG = 7


class Look(NamedTuple):
    """What is measured of one clip."""

    line: Line
    colour: str | None
    shares: dict[str, float]
    luma: float
    motion: str | None
    camera: str | None
    texts: tuple[str, ...]


def clip_drafts(
    measures: Measures, cuts_s: Sequence[float], captions: Sequence[Caption], *, seed: str
) -> Iterator[Draft]:
    """Yield a draft for all that is clear, kind by kind. Nothing is asked of fewer than three clips."""
    looks = looks_of(measures, cuts_s, captions)
    if len(looks) < 3:
        return
    for kind, write in WRITERS.items():
        for draft in write(looks, content_id(seed, kind)):
            yield draft.model_copy(update={"kind": kind})


def looks_of(measures: Measures, cuts_s: Sequence[float], captions: Sequence[Caption]) -> list[Look]:
    """Measure every clip that has samples, in the order of time."""
    said = {caption.clip_id: texts_of(caption) for caption in captions}
    found = []
    for line in numbered(captions):
        span = Span(measures, line.start_s, line.stop_s, tuple(cuts_s))
        if span.num_samples:
            shares: dict[str, float] = dict(zip(COLOURS, map(float, span.colour_shares()), strict=True))
            found.append(
                Look(
                    line, measure.main_colour(span), shares, span.luma(), measure.motion(span),
                    measure.camera_direction(span), said[line.clip_id],
                )
            )  # fmt: skip
    return found


def texts_of(caption: Caption) -> tuple[str, ...]:
    """Return what the caption's facts say is written in the picture (``text``: texts, or what has a text)."""
    given = caption.facts.get("text")
    items = [given] if isinstance(given, str) else given if isinstance(given, list | tuple) else []
    texts = [item.get("text") if isinstance(item, dict) else item for item in items]
    return tuple(dict.fromkeys(said for text in texts if isinstance(text, str) and (said := clean(text))))


def _told_apart(looks: Sequence[Look]) -> list[Look]:
    """Return the clips that are mostly in a colour which no other clip has much of."""
    return [
        look
        for look in looks
        if look.colour and all(o.shares[look.colour] < _RARE_SHARE for o in looks if o is not look)
    ]


def _temporal(looks: Sequence[Look], _: str) -> Iterator[Draft]:
    apart = _told_apart(looks)
    for before, after in pairwise(looks):
        if before in apart and after.colour:
            yield _draft(
                f"What is the main colour directly after the part that is mostly {before.colour}?",
                after.colour,
                [colour for colour in COLOURS if colour != before.colour],
                [before, after],
            )


def _counting(looks: Sequence[Look], seed: str) -> Iterator[Draft]:
    for colour in COLOURS:
        verdicts = [
            True if look.colour == colour else False if look.shares[colour] < _RARE_SHARE else None
            for look in looks
        ]
        count = sum(value is True for value, _ in groupby(verdicts))
        if None in verdicts or count < 2:
            continue
        wrong = other_numbers(count, seed=content_id(seed, colour), num_distractors=NUM_WRONG)
        shown = [look for look, verdict in zip(looks, verdicts, strict=True) if verdict]
        yield _draft(f"How many separate parts of the video are mostly {colour}?", str(count), wrong, shown)


def _order(looks: Sequence[Look], seed: str) -> Iterator[Draft]:
    apart = _told_apart(looks)
    if len(apart) < 3:
        return
    rng = random.Random(seed)
    chosen = sorted(rng.sample(apart, min(4, len(apart))), key=lambda look: look.line.number)
    events = [(f"a picture that is mostly {look.colour}", look.line.start_s) for look in chosen]
    question, answer, wrong = order_of(events, seed=seed, num_distractors=NUM_WRONG)
    yield _draft(question, answer, wrong, chosen)


def _localisation(looks: Sequence[Look], seed: str) -> Iterator[Draft]:
    lines = [look.line for look in looks]
    asked = [(f"When is the picture mostly {look.colour}?", look) for look in _told_apart(looks)]
    ordered = sorted(looks, key=lambda look: look.luma)
    if ordered[1].luma - ordered[0].luma >= _EXTREME_LEAD:
        asked.append(("When is the video darkest?", ordered[0]))
    if ordered[-1].luma - ordered[-2].luma >= _EXTREME_LEAD:
        asked.append(("When is the video brightest?", ordered[-1]))
    for question, look in asked:
        wrong = other_spans(
            lines, [look.line], seed=content_id(seed, question), num_distractors=NUM_WRONG
        )  # fmt: skip
        yield _draft(question, span_text(look.line.start_s, look.line.stop_s), wrong, [look])


def _needle(looks: Sequence[Look], seed: str) -> Iterator[Draft]:
    shown = random.Random(seed).sample(list(looks), min(_MAX_OF_A_KIND, len(looks)))
    for look in sorted(shown, key=lambda look: look.line.number):
        part = _named(look, looks)
        if look.camera:
            yield _draft(f"Which way does the camera go in {part}?", look.camera, measure.DIRECTIONS, [look])
        if look.motion:
            yield _draft(f"How much moves in {part}?", _MOTION[look.motion], tuple(_MOTION.values()), [look])


def _cross_clip(looks: Sequence[Look], seed: str) -> Iterator[Draft]:
    rng = random.Random(seed)
    pairs = [
        rng.sample(pair, 2)
        for pair in combinations(rng.sample(list(looks), min(_MAX_COMPARED, len(looks))), 2)
        if abs(pair[1].line.number - pair[0].line.number) > 1
    ]
    clear = [(pair, verdict) for pair in pairs if (verdict := _compared(*pair)) is not None]
    for (first, second), verdict in rng.sample(clear, min(_MAX_OF_A_KIND, len(clear))):
        question = f"Compared with {_named(first, looks)}, how is the light in {_named(second, looks)}?"
        yield _draft(question, verdict, _LIGHT, [first, second])


def _named(look: Look, looks: Sequence[Look]) -> str:
    """Speak of a clip by the colour that it alone is mostly in, else by its time."""
    if _told_apart([look, *(other for other in looks if other is not look)])[:1] == [look]:
        return f"the part that is mostly {look.colour}"
    return f"the part {span_text(look.line.start_s, look.line.stop_s)}"


def _compared(first: Look, second: Look) -> str | None:
    """Say how the second clip's light compares with the first one's, when it is clear."""
    step = second.luma - first.luma
    if abs(step) <= _MAX_LIGHT_SAME:
        return _LIGHT[1]
    if abs(step) < _LIGHT_STEP:
        return None
    return _LIGHT[2] if step > 0 else _LIGHT[0]


def _unanswerable(looks: Sequence[Look], seed: str) -> Iterator[Draft]:
    absent = [c for c in COLOURS if all(look.shares[c] < _ABSENT_SHARE for look in looks)]
    if absent:
        colour = random.Random(seed).choice(absent)
        question = f"Which way does the camera go in the part of the video that is mostly {colour}?"
        yield _draft(question, CANNOT_TELL, measure.DIRECTIONS, looks)


def _ocr(looks: Sequence[Look], _: str) -> Iterator[Draft]:
    everything = [(look, text) for look in looks for text in look.texts]
    for look, text in everything:
        once = sum(same_words(text, other) for _, other in everything) == 1
        if once and len(look.texts) == 1:
            wrong = [other for _, other in everything if other != text]
            place = time_text((look.line.start_s + look.line.stop_s) / 2)
            yield _draft(f"What is written in the picture at {place}?", text, wrong, [look])


def _draft(question: str, answer: str, wrong: Sequence[str], looks: Sequence[Look]) -> Draft:
    clips = tuple(look.line.number for look in looks[:MAX_EVIDENCE])
    others = tuple(text for text in wrong if text != answer)
    return Draft(kind="", question=question, answer=answer, distractors=others, clips=clips)


WRITERS: dict[str, Callable[[Sequence[Look], str], Iterator[Draft]]] = {
    "temporal": _temporal,
    "counting": _counting,
    "order": _order,
    "localisation": _localisation,
    "needle": _needle,
    "cross_clip": _cross_clip,
    "unanswerable": _unanswerable,
    "ocr": _ocr,
}
