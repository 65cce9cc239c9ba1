"""What a model writes when it has nothing to say: noise, loops, its own prompt, an apology."""

from __future__ import annotations

import re
import zlib
from collections import Counter

_MIN_LETTERS = 3
_MAX_SAME_CHARACTER = 0.5
_LOOP_TIMES, _LOOP_WORDS, _MAX_PERIOD = 4, 12, 40
_MAX_COMPRESSION = 8.0  # plain prose of any length stays below 4
_ECHO_WORDS, _ECHO_SHARE = 8, 0.5
_UNREADABLE_SHARE = 0.05
_TEMPLATE = re.compile(r"<\|[a-z_]+\|>|<image>|<video>|</?s>|\[/?INST\]|<start_of_turn>|<end_of_turn>", re.I)
_CANNOT = (
    r"i (cannot|can['’]?t|can not|am unable|am not able|do not have|don['’]?t have)|i['’]m (unable|not able)"
)
_SEE = (
    r"see|view|watch|assist|help|describe|process|analy[sz]e|access|provide|identify|fulfil|image|video|frame"
)
_PICTURES = r"(image|picture|video|frame|photo)s?"
_REFUSAL = re.compile(
    rf"^\W*(i['’]?m (very |really )?sorry|sorry[,.]|i apologi[sz]e|unfortunately, i|"
    rf"as an? (ai|artificial|large|text|language)\b|"
    rf"({_CANNOT})\b(\s+\w+){{0,4}}?\s+({_SEE})|"
    rf"(no|there (is|are) no) {_PICTURES} (was|were|is|are|has|have|provided|attached|in your)|"
    rf"please (provide|upload|share|attach)\b)",
    re.I,
)


def what_is_wrong(text: str, *, prompt: str = "") -> str | None:
    """Say in words why ``text`` is no answer; None when it may be one. ``prompt`` is what was asked."""
    letters = [letter for letter in text if not letter.isspace()]
    if not letters:
        return "the answer is empty"
    character, count = Counter(letters).most_common(1)[0]
    if len(letters) >= 6 and count / len(letters) > _MAX_SAME_CHARACTER:
        return f"the answer is mostly {character!r}"
    if sum(letter.isalpha() for letter in letters) < _MIN_LETTERS:
        return f"the answer has no words: {text.strip()[:40]!r}"
    if sum(letter == "\ufffd" for letter in letters) / len(letters) > _UNREADABLE_SHARE:
        return "the answer holds characters that cannot be read"
    if found := _TEMPLATE.search(text):
        return f"the answer holds {found.group()!r}, a mark of a chat template"
    if _REFUSAL.search(text):
        return f"the model declined: {text.strip()[:80]!r}"
    if loop := _loop(text):
        return f"the answer repeats {loop[:60]!r}"
    if _echoes(text, prompt):
        return "the answer repeats the prompt"
    return None


def _loop(text: str) -> str | None:
    """What is said again and again without anything between, or at whatever place; None for prose."""
    words = text.lower().split()
    for period in range(1, min(_MAX_PERIOD, len(words) // _LOOP_TIMES) + 1):
        run = 0
        for place in range(period, len(words)):
            run = run + 1 if words[place] == words[place - period] else 0
            if run >= max(period * (_LOOP_TIMES - 1), _LOOP_WORDS - period):
                return " ".join(words[place - period + 1 : place + 1])
    data = text.encode()
    if len(data) > 400 and len(data) / len(zlib.compress(data)) > _MAX_COMPRESSION:
        return text.strip()
    pieces = [text[i : i + 12] for i in range(0, max(0, len(text) - 12))]
    if len(words) < 8 and len(pieces) > 60:  # a language without spaces
        piece, count = Counter(pieces).most_common(1)[0]
        return piece if count >= 2 * _LOOP_TIMES and count * 12 > len(text) / 2 else None
    return None


def _echoes(text: str, prompt: str) -> bool:
    """Whether most runs of eight words stand in the prompt as well."""
    runs = _runs(text)
    return bool(runs) and len(runs & _runs(prompt)) / len(runs) > _ECHO_SHARE


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + _ECHO_WORDS]) for i in range(len(words) - _ECHO_WORDS + 1)}
