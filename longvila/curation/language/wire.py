"""The chat completions format: what is sent, and what an answer or an error says. No network here."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from longvila.config.language import LanguageModelConfig
from longvila.curation.language.protocol import Message
from longvila.curation.language.schema import Schema, with_schema

Format = Literal["json_schema", "json_object", "plain"]
FORMATS: tuple[Format, ...] = ("json_schema", "json_object", "plain")
_FORMAT_WORDS = ("response_format", "json_schema", "json_object", "guided", "grammar", "structured", "schema")
_BLOCKED_WORDS = (
    "content_filter",
    "content filter",
    "content_policy",
    "moderation",
    "flagged",
    "safety system",
)
_THOUGHT = re.compile(r"^\s*<think>.*?(</think>\s*|$)", re.DOTALL)
_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_IMAGE = 256  # about one per 24 × 24 pixels of a frame of 384
_MAX_SHOWN = 300


class Answer(NamedTuple):
    """One answer as the server gave it. Token counts are None where it did not count."""

    text: str
    finish: Literal["stop", "length", "blocked"]
    model: str
    tokens_in: int | None
    tokens_out: int | None


def request_body(
    config: LanguageModelConfig,
    messages: Sequence[Message],
    *,
    max_tokens: int,
    seed: int,
    schema: Schema | None,
    form: Format,
) -> dict[str, Any]:
    """Return the JSON body of one request."""
    if schema is not None and form != "json_schema":
        messages = with_schema(messages, schema)
    body: dict[str, Any] = {
        **config.extra_body,
        "model": config.model,
        "messages": [{"role": turn.role, "content": _content(turn)} for turn in messages],
        "max_tokens": max_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "seed": seed,
    }
    if schema is not None and form == "json_schema":
        named = {"name": "answer", "schema": dict(schema), "strict": _can_be_strict(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    elif schema is not None and form == "json_object":
        body["response_format"] = {"type": "json_object"}
    return body


def _content(turn: Message) -> str | list[dict[str, Any]]:
    if not turn.images:
        return turn.text
    pictures = [
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"},
        }
        for image in turn.images
    ]
    return [*pictures, {"type": "text", "text": turn.text}]


def _can_be_strict(schema: Any) -> bool:
    """Whether hosted servers take the schema as strict: every object closed, and all of it required."""
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        if isinstance(properties, Mapping) and (
            schema.get("additionalProperties") is not False
            or set(schema.get("required", ())) != set(properties)
        ):
            return False
        return all(_can_be_strict(value) for value in schema.values())
    return all(_can_be_strict(value) for value in schema) if isinstance(schema, list | tuple) else True


def read_answer(payload: Any) -> Answer:
    """Read a chat completion. Raises ``ValueError`` for anything else."""
    try:
        choice = payload["choices"][0]
        message = choice["message"]
    except (KeyError, IndexError, TypeError):
        raise ValueError("the answer is not a chat completion") from None
    if not isinstance(message, Mapping):
        raise ValueError("the answer is not a chat completion")
    text = _plain_text(message.get("content"))
    refusal = message.get("refusal")
    blocked = choice.get("finish_reason") == "content_filter" or (not text and isinstance(refusal, str))
    cut = choice.get("finish_reason") in ("length", "max_tokens")
    usage = payload.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    model = payload.get("model")
    return Answer(
        text=_THOUGHT.sub("", text) if text else "",
        finish="blocked" if blocked else "length" if cut else "stop",
        model=clean(model)[:200] if isinstance(model, str) else "",
        tokens_in=_count(usage.get("prompt_tokens")),
        tokens_out=_count(usage.get("completion_tokens")),
    )


def _plain_text(content: Any) -> str:
    if isinstance(content, str):
        return clean(content)
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return clean("".join(part for part in parts if isinstance(part, str)))
    return ""


def clean(text: str) -> str:
    """Return ``text`` as what UTF-8 can hold, without control characters."""
    kept = "".join(letter for letter in text if letter in "\n\t" or ord(letter) >= 32)
    return kept.encode("utf-8", "replace").decode()


def _count(value: Any) -> int | None:
    whole = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return int(value) if whole and 0 <= value < 10**9 else None


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Return about how many tokens the messages are."""
    return sum(
        4 + math.ceil(len(turn.text) / _CHARACTERS_PER_TOKEN) + len(turn.images) * _TOKENS_PER_IMAGE
        for turn in messages
    )


def estimate_text(text: str) -> int:
    """Return about how many tokens a text is."""
    return math.ceil(len(text) / _CHARACTERS_PER_TOKEN)


def error_text(data: bytes) -> str:
    """Return what an error's body says, in one short line."""
    text = data[:20_000].decode("utf-8", "replace")
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        payload = None
    found = _message_in(payload) if payload is not None else text
    return " ".join(clean(found).split())[:_MAX_SHOWN] or "it gave no reason"


def _message_in(payload: Any) -> str:
    """The message and the code of the common shapes of error bodies."""
    if not isinstance(payload, Mapping):
        return json.dumps(payload)
    error = payload.get("error", payload)
    if isinstance(error, str):
        return error
    if not isinstance(error, Mapping):
        return json.dumps(payload)
    said = [error.get(name) for name in ("message", "detail", "code", "type")]
    return " ".join(str(part) for part in said if part not in (None, "")) or json.dumps(payload)


def is_about_format(message: str) -> bool:
    """Whether a refusal seems to be about the answer's format."""
    return any(word in message.lower() for word in _FORMAT_WORDS)


def is_about_content(message: str) -> bool:
    """Whether a refusal seems to be about what was shown or asked."""
    return any(word in message.lower() for word in _BLOCKED_WORDS)
