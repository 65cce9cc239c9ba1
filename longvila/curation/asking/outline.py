"""A video as text: its captions as numbered, timed lines, in parts that fit a model's context.

Captions come from outside. They are put on one line each, shortened when they are huge, and their angle
brackets are changed, so that nothing in them can close the tags that stand around them in a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from longvila.curation.asking.wording import clean
from longvila.records import Caption

MAX_CAPTION_CHARS = 2000
_SHORTEST_CHARS = 48  # of a line of a sketch; longer videos show fewer lines
BRACKETS = str.maketrans({"<": "‹", ">": "›"})
_LETTERS_PER_TOKEN = 3.5


class Line(NamedTuple):
    """One clip and what is said of it. Numbers begin with 1 and count all clips of the video."""

    number: int
    clip_id: str
    start_s: float
    stop_s: float
    text: str

    def render(self, *, max_chars: int = MAX_CAPTION_CHARS) -> str:
        """Return the line as a prompt shows it."""
        times = f"{time_text(self.start_s)}-{time_text(self.stop_s)}"
        return f"[{self.number}] {times} {_shortened(self.text, max_chars).translate(BRACKETS)}"


def lines_of(captions: Sequence[Caption]) -> list[Line]:
    """Return the clips of one video in the order of time; those of which nothing is said are left out."""
    return [line for line in numbered(captions) if line.text]


def numbered(captions: Sequence[Caption]) -> list[Line]:
    """Return all clips of one video in the order of time; captions of longer stretches are none."""
    clips = sorted(of_level(captions, "clip"), key=lambda caption: (caption.start_s, caption.stop_s))
    return [
        Line(i, clip.clip_id, clip.start_s, clip.stop_s, clean(clip.text[: 8 * MAX_CAPTION_CHARS]))
        for i, clip in enumerate(clips, start=1)
    ]


def of_level(captions: Sequence[Caption], level: str) -> list[Caption]:
    """Return the captions of clips, of chapters, or of the whole video."""
    return [caption for caption in captions if caption.level == level]


def time_text(seconds: float) -> str:
    """Return a time as m:ss, or h:mm:ss from an hour on."""
    whole = max(0, round(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def span_text(start_s: float, stop_s: float) -> str:
    """Return a span as an answer states it."""
    return f"from {time_text(start_s)} to {time_text(stop_s)}"


def render(lines: Sequence[Line]) -> str:
    """Return lines as a prompt shows them."""
    return "\n".join(line.render() for line in lines)


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text has: generous, since the model's tokenizer is not known."""
    narrow = sum(c.isascii() for c in text)
    return math.ceil(narrow / _LETTERS_PER_TOKEN) + len(text) - narrow


def parts(lines: Sequence[Line], max_tokens: int) -> list[list[Line]]:
    """Cut the lines into consecutive parts of about one size, of at most ``max_tokens`` where lines allow."""
    sizes = [estimate_tokens(line.render()) for line in lines]
    count = len(_filled(lines, sizes, max_tokens))
    low, high = 0, max_tokens  # the smallest limit that needs no more parts
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_filled(lines, sizes, middle)) == count else (middle, high)
    return _filled(lines, sizes, high)


def sketch(lines: Sequence[Line], max_tokens: int) -> list[Line]:
    """Return all lines, shortened alike so that they fit; of a very long video, evenly chosen ones."""
    if estimate_tokens(render(lines)) <= max_tokens:
        return list(lines)
    overhead = 8  # of number and times
    at_most = max(1, max_tokens // (overhead + math.ceil(_SHORTEST_CHARS / _LETTERS_PER_TOKEN)))
    step = math.ceil(len(lines) / at_most)
    chosen = list(lines)[::step]
    each = max_tokens // len(chosen) - overhead
    return [line._replace(text=_within(line.text, each)) for line in chosen]


def _filled(lines: Sequence[Line], sizes: Sequence[int], limit: int) -> list[list[Line]]:
    """Fill part after part up to ``limit``; a line that is larger is a part of its own."""
    found: list[list[Line]] = [[]]
    room = limit
    for line, size in zip(lines, sizes, strict=True):
        if found[-1] and size > room:
            found.append([])
            room = limit
        found[-1].append(line)
        room -= size
    return found


def _within(text: str, max_tokens: int) -> str:
    chars = max(4, int(max_tokens * _LETTERS_PER_TOKEN))
    while estimate_tokens(text[:chars]) > max_tokens and chars > 4:
        chars = chars * 2 // 3
    return _shortened(text, chars)


def _shortened(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    return text[: max(1, max_chars - 1)].rsplit(" ", 1)[0] + "…"
