"""From a foreign sample's text to ours: LLaVA's conversations, chat messages, or a bare caption."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from longvila.errors import ItemError
from longvila.records import Turn
from longvila.text.tokenizer import FRAMES_MARK

_ROLES: dict[str, Literal["system", "human", "gpt"]] = {
    "system": "system", "human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "model": "gpt",
}  # fmt: skip
_MEDIA_MARK = re.compile(r"<(?:video|image)(?:-\d+)?>\n?")
_CAPTION_FIELDS = ("caption", "text", "txt", "description")


def turns_of_json(data: bytes, *, has_media: bool) -> tuple[Turn, ...]:
    """Return the turns of a ``KEY.json``; ``ItemError`` (bad-json, no-text, turns) if it has none."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ItemError("bad-json", f"its JSON cannot be read ({type(error).__name__}: {error})") from error
    if isinstance(record, list):
        return turns_of_json(json.dumps({"conversations": record}).encode(), has_media=has_media)
    if not isinstance(record, dict):
        raise ItemError("no-text", "its JSON is neither an object nor a list of turns")
    for name, role, text in (("conversations", "from", "value"), ("messages", "role", "content")):
        if isinstance(record.get(name), list):
            return _with_mark(_turns(record[name], role, text), has_media=has_media)
    for name in _CAPTION_FIELDS:
        caption = record.get(name)
        if isinstance(caption, str) and caption.strip():
            return turns_of_caption(caption, has_media=has_media)
    raise ItemError(
        "no-text", f"its JSON has no conversations, messages or caption, only {sorted(record)[:8]}"
    )


def turns_of_caption(text: str, *, has_media: bool) -> tuple[Turn, ...]:
    """Return a caption as the answer to the bare frames, or a text without media as it is."""
    if not text.strip():
        raise ItemError("no-text", "its caption is empty")
    caption = Turn(role="gpt", text=_clean(text.strip()))
    return (Turn(role="human", text=FRAMES_MARK), caption) if has_media else (caption,)


def _turns(listed: list[Any], role_field: str, text_field: str) -> list[Turn]:
    turns = []
    for one in listed:
        role = _ROLES.get(str(one.get(role_field))) if isinstance(one, dict) else None
        text = one.get(text_field) if isinstance(one, dict) else None
        if role is None or not isinstance(text, str):
            raise ItemError(
                "turns", f"one of its turns is not {{{role_field}, {text_field}}}: {str(one)[:80]}"
            )
        turns.append(Turn(role=role, text=text))
    spoken = [turn.role for turn in turns if turn.role != "system"]
    if len(spoken) < 2 or spoken != ["human", "gpt"] * (len(spoken) // 2):
        raise ItemError("turns", f"its turns are {[turn.role for turn in turns]}, not human and gpt in turn")
    return turns


def _with_mark(turns: list[Turn], *, has_media: bool) -> tuple[Turn, ...]:
    """Put one ``<frames>`` where the only medium stands, or else before the first question."""
    first = next(i for i, turn in enumerate(turns) if turn.role == "human")
    marks = [len(_MEDIA_MARK.findall(turn.text)) for turn in turns]
    stays = has_media and sum(marks) == 1 and turns[marks.index(1)].role == "human"
    cleaned = []
    for i, turn in enumerate(turns):
        text = _clean(turn.text)
        if stays and marks[i]:
            before, after = _MEDIA_MARK.split(text, maxsplit=1)
            text = f"{before}{FRAMES_MARK}\n{after}"
        else:
            text = _MEDIA_MARK.sub("", text)
            if has_media and not stays and i == first:
                text = f"{FRAMES_MARK}\n{text}"
        cleaned.append(Turn(role=turn.role, text=text))
    return tuple(cleaned)


def _clean(text: str) -> str:
    if FRAMES_MARK in text:
        raise ItemError("foreign-mark", f"its text has {FRAMES_MARK!r}, which is our mark for frames")
    return text
