"""Answers in JSON: found in what a model said, checked against a schema, and asked for once more when bad."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from longvila.curation.language.protocol import Completion, Message
from longvila.errors import ConfigError, ItemError

_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
_SHOWN_CHARACTERS = 300
_MAX_STARTS = 50  # places in a text where a JSON value is looked for
Schema = Mapping[str, Any]


class BadAnswer(ValueError):
    """The text is not JSON, or JSON that does not fit. The message is written for the model."""


def check_schema(schema: Schema) -> None:
    """Raise ``ConfigError`` when ``schema`` is not a JSON schema."""
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"The prompt's answer is not a JSON schema: {error.message}.") from error


def fit(text: str, schema: Schema) -> str:
    """Return the JSON in ``text`` that fits ``schema``, written plainly. Raises ``BadAnswer``."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    value = find_json(text)
    validator = Draft202012Validator(schema)
    error = best_match(validator.iter_errors(value))
    if error is not None:
        place = ".".join(str(part) for part in error.absolute_path) or "the whole answer"
        raise BadAnswer(f"{place}: {error.message[:_SHOWN_CHARACTERS]}")
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def find_json(text: str) -> Any:
    """Return the JSON value in ``text``: all of it, a fenced block, or the first object or list."""
    for candidate in [text.strip(), *(match.strip() for match in _FENCED.findall(text))]:
        try:
            return json.loads(candidate, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            continue
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    for start in [match.start() for match in re.finditer(r"[{\[]", text)][:_MAX_STARTS]:
        try:
            return decoder.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            continue
    raise BadAnswer("there is no whole JSON value in the answer")


def complete_json(
    ask: Callable[[Sequence[Message]], Completion],
    messages: Sequence[Message],
    schema: Schema,
    *,
    told: Callable[[bool], None] | None = None,
) -> Completion:
    """Ask, and once more with the error when the answer does not fit. Raises ``ItemError`` "bad-json".

    The answer's usage counts both. ``told`` hears of each answer whether it was good.
    """
    check_schema(schema)
    told = told or (lambda _: None)
    first = ask(messages)
    try:
        fitted = _fitted(first, schema)
    except BadAnswer as error:
        if first.finish == "length":
            raise ItemError("bad-json", _cut_off(first)) from error
        told(False)
        again = ask([*messages, *_asked_again(first.text, error, schema)])
    else:
        told(True)
        return fitted
    try:
        fitted = _fitted(again, schema)
    except BadAnswer as error:
        told(False)
        detail = _cut_off(again) if again.finish == "length" else f"asked twice; {error}"
        raise ItemError("bad-json", detail) from error
    told(True)
    return fitted.model_copy(
        update={"usage": first.usage + again.usage, "cached": first.cached and again.cached}
    )


def with_schema(messages: Sequence[Message], schema: Schema) -> list[Message]:
    """Return the messages with the schema told in words, for a model that is not held to it."""
    last = messages[-1]
    text = f"{last.text}\n\n{_in_words(schema)}"
    return [*messages[:-1], last.model_copy(update={"text": text})]


def _fitted(completion: Completion, schema: Schema) -> Completion:
    return completion.model_copy(update={"text": fit(completion.text, schema)})


def _asked_again(text: str, error: BadAnswer, schema: Schema) -> list[Message]:
    request = f"That answer cannot be used: {error}.\n\n{_in_words(schema)}"
    return [
        Message(role="assistant", text=text[:4000] or "(nothing)"),
        Message(role="user", text=request),
    ]


def _in_words(schema: Schema) -> str:
    return (
        "Answer with JSON only, without any other words, that fits this JSON schema:\n"
        f"{json.dumps(schema, ensure_ascii=False)}"
    )


def _cut_off(completion: Completion) -> str:
    return (
        f"the JSON was cut off after {completion.usage.tokens_out} tokens. Raise max_tokens, or ask for less"
    )


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
