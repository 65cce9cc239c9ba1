"""The measured captioner: true sentences about a clip, each computed from its pixels.

It needs no model and invents nothing; what is not clear is left out. ``facts`` holds the numbers behind the
words, so that a reader can check them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longvila.curation import measure, movers
from longvila.curation.colours import COLOURS
from longvila.curation.measure import Span
from longvila.curation.on_screen_text import SeenText, between
from longvila.curation.sampling import Measures
from longvila.records import Caption, Clip, Shot, content_id

VERSION = 2
NAME = f"measured-{VERSION}"
_NAMED_SHARE = 0.12
_CHANGES = {"darker": "it grows darker", "brighter": "it grows brighter"}
_ZOOMS = {"in": "the view closes in", "out": "the view draws out"}
_MAX_QUOTED = 4
_WAYS = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}
_WHERE = {"middle": "in the middle"} | {side: f"at the {side}" for side in measure.SIDES}


class MeasuredCaptioner:
    """Describes the clips of one video in order, knowing what came before."""

    def __init__(
        self, measures: Measures, shots: Sequence[Shot], texts: Sequence[SeenText] | None = None
    ) -> None:
        """``texts`` are those of the whole video, none when nobody looked for them."""
        self._measures = measures
        self._texts = texts
        self._cuts_s = tuple(shot.start_s for shot in shots if shot.index > 0)
        self._earlier: list[tuple[float, slice]] = []  # (start_s, samples) of the clips before

    def caption(self, clip: Clip) -> Caption:
        """Describe one clip. Clips are to be given in the order of time."""
        span = Span(self._measures, clip.start_s, clip.stop_s, self._cuts_s)
        facts = _facts(span)
        if self._texts is not None:
            shown = between(self._texts, clip.start_s, clip.stop_s)
            facts["text"] = [text.model_dump(exclude={"score"}) for text in shown]
        facts["seen_before_at_s"] = self._seen_before(span)
        return Caption(
            caption_id=content_id("caption", NAME, clip.clip_id),
            clip_id=clip.clip_id,
            video_id=clip.video_id,
            start_s=clip.start_s,
            stop_s=clip.stop_s,
            text=_sentence(facts),
            facts=facts,
            captioner=NAME,
        )

    def _seen_before(self, span: Span) -> float | None:
        """Return when the earliest clip began that shows the same view, the clip just before aside."""
        earlier = self._earlier[:-1]
        self._earlier.append((span.start_s, span.here))
        for start_s, known in earlier:
            if measure.view_distance(self._measures, known, span.here) <= measure.SAME_VIEW:
                return round(start_s, 2)
        return None


def _facts(span: Span) -> dict[str, object]:
    shares_C = span.colour_shares()
    order = np.argsort(-shares_C)
    colours = {COLOURS[i]: round(float(shares_C[i]), 3) for i in order if shares_C[i] >= _NAMED_SHARE}
    amount = measure.motion_amount(span)
    facts: dict[str, object] = {
        "luma": round(span.luma(), 3),
        "brightness": measure.brightness(span),
        "light_change": measure.light_change(span),
        "colours": colours,
        "main_colour": measure.main_colour(span),
        "places": {
            colour: place for colour in colours if (place := measure.colour_place(span, colour)) is not None
        },
        "lightest_side": measure.lightest_side(span),
        "motion_amount": None if amount is None else round(amount, 4),
        "motion": measure.motion(span),
        "camera": measure.camera_direction(span),
        "zoom": movers.zoom(span),
        "object_motion": _object_motion(span),
        "texture": measure.texture(span),
        "shots": len(span.shots()),
    }
    return facts


def _object_motion(span: Span) -> dict[str, object] | None:
    found = movers.object_motion(span)
    if found is None:
        return None
    still = measure.camera_direction(span) == "nowhere" and movers.zoom(span) == "none"
    return {
        "direction": found.direction,
        "place": found.place,
        "size": found.size,
        "camera": "still" if still else "not known to be still",
    }


def _sentence(facts: dict[str, object]) -> str:
    light = {"dark": "A dark", "bright": "A bright"}.get(str(facts["brightness"]), "A")
    colours, places = facts["colours"], facts["places"]
    assert isinstance(colours, dict)
    assert isinstance(places, dict)
    named = [f"{colour} at the {places[colour]}" if colour in places else colour for colour in colours]
    parts = [f"{light} picture in {_listed(named)}" if named else f"{light} picture of many colours"]
    if facts["texture"] in ("smooth", "fine"):
        parts.append(f"{facts['texture']} in detail")
    if facts["motion"] is not None:
        parts.append(
            {"still": "almost nothing moves", "slow": "slow motion", "fast": "fast motion"}[
                str(facts["motion"])
            ]
        )
    if facts["camera"] not in (None, "nowhere"):
        parts.append(f"the camera goes {facts['camera']}")
    if facts["zoom"] in _ZOOMS:
        parts.append(_ZOOMS[str(facts["zoom"])])
    if facts["object_motion"] is not None:
        parts.append(_moving_thing(facts["object_motion"]))
    if facts["light_change"] in _CHANGES:
        parts.append(_CHANGES[str(facts["light_change"])])
    if facts["shots"] != 1:
        parts.append(f"{facts['shots']} shots")
    if facts.get("text"):
        parts.append(_written(facts["text"]))
    if facts["seen_before_at_s"] is not None:
        parts.append(f"a view that was seen before at {facts['seen_before_at_s']} s")
    return "; ".join(parts) + "."


def _moving_thing(motion: object) -> str:
    assert isinstance(motion, dict)
    words = ["something"]
    if motion["size"] is not None:
        words.append(str(motion["size"]))
    if motion["place"] is not None:
        words.append(_WHERE[str(motion["place"])])
    words += ["moves", _WAYS[str(motion["direction"])]]
    if motion["camera"] != "still":
        words.append("against the rest of the picture")
    return " ".join(words)


def _written(texts: object) -> str:
    assert isinstance(texts, list)
    quoted = [f"“{shown['text']}”" for shown in texts[:_MAX_QUOTED]]
    if len(texts) > _MAX_QUOTED:
        quoted.append(f"{len(texts) - _MAX_QUOTED} more lines")
    return f"text reads {_listed(quoted)}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
