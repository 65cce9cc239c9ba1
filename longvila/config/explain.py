"""Turns what pydantic found wrong into lines that a person can act on.

Every line names the field by its dotted path, where it was set, the value that was given, what is allowed,
and for an unknown key the nearest one that exists.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from longvila.errors import ConfigError

Location = tuple[int | str, ...]


def explain(
    error: ValidationError,
    model: type[BaseModel],
    *,
    data: Any,
    origin: str,
    text: str = "",
    overrides: Mapping[str, Any] | None = None,
) -> ConfigError:
    """Return one ``ConfigError`` for everything that ``error`` found in ``data``.

    ``origin`` names the file or the option; ``text`` is the YAML that ``data`` came from (for line numbers);
    ``overrides`` are the ``--set`` values, named as the origin of their fields.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader) if text else None
    lines = [
        _line(item, model, data=data, node=node, overrides=overrides or {})
        for item in _without_echoes(error.errors(include_url=False))
    ]
    noun = "error" if len(lines) == 1 else "errors"
    return ConfigError("\n".join([f"{origin} has {len(lines)} {noun}:", *(f"  {line}" for line in lines)]))


def _without_echoes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out a list that is "too short" only because its items are wrong: those say it better."""

    def has_inner(item: ErrorDetails) -> bool:
        size = len(item["loc"])
        return any(len(other["loc"]) > size and other["loc"][:size] == item["loc"] for other in errors)

    return [item for item in errors if item["type"] != "too_short" or not has_inner(item)]


def _line(
    item: ErrorDetails,
    model: type[BaseModel],
    *,
    data: Any,
    node: yaml.Node | None,
    overrides: Mapping[str, Any],
) -> str:
    location = item["loc"]
    field = dotted(location, data) or "(the whole file)"
    where = _where(location, field, node, overrides)
    if item["type"] == "extra_forbidden":
        return f"{field}{where}: unknown key. {_nearest(location, model)}"
    if item["type"] == "missing":
        return f"{field}{where}: missing. {_description(location, model)}".rstrip()
    message = _plainly(item)
    given = item["input"]
    said = "" if isinstance(given, dict | list | tuple | BaseModel) else f"{given!r} was given. "
    return f"{field}{where}: {said}{message}. {_description(location, model)}".rstrip()


def _plainly(item: ErrorDetails) -> str:
    """What is wrong, without the names of Python's types."""
    if item["type"] == "too_short":
        return f"at least {item['ctx']['min_length']} must be given" if "ctx" in item else item["msg"]
    return item["msg"].removeprefix("Value error, ").replace("valid tuple", "list")


def dotted(location: Location, data: Any) -> str:
    """The path as it is written with ``--set``: list items by their name where they have one."""
    parts: list[str] = []
    for part in location:
        label, data = str(part), _child(data, part)
        if isinstance(part, int) and isinstance(data, dict) and isinstance(data.get("name"), str):
            label = data["name"]
        parts.append(label)
    return ".".join(parts)


def _child(data: Any, part: int | str) -> Any:
    if isinstance(data, dict):
        return data.get(part)
    if isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
        return data[part]
    return None


def _where(location: Location, field: str, node: yaml.Node | None, overrides: Mapping[str, Any]) -> str:
    plain = ".".join(str(part) for part in location)
    for path in overrides:
        if path in (field, plain) or field.startswith(f"{path}.") or plain.startswith(f"{path}."):
            return f" (--set {path})"
    line = _line_number(location, node)
    return f" (line {line})" if line else ""


def _line_number(location: Location, node: yaml.Node | None) -> int | None:
    """The line of the deepest part of ``location`` that stands in the file."""
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == part]
            if not pairs:
                break
            line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            inner: yaml.Node = node.value[part]
            line, node = inner.start_mark.line + 1, inner
        else:
            break
    return line


def _nearest(location: Location, model: type[BaseModel]) -> str:
    owner = _model_at(location[:-1], model)
    if owner is None:
        return "Remove it."
    known = list(owner.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else f"Known here: {', '.join(known)}"


def _description(location: Location, model: type[BaseModel]) -> str:
    owner = _model_at(location[:-1], model)
    field = owner.model_fields.get(str(location[-1])) if owner and location else None
    return f"({field.description})" if field and field.description else ""


def _model_at(location: Location, model: type[BaseModel]) -> type[BaseModel] | None:
    """The model class that describes the mapping at ``location``."""
    here: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = here.model_fields.get(part)
        if field is None:
            return None
        found = _inner_model(field.annotation)
        if found is None:
            return None
        here = found
    return here


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """The model inside ``X``, ``X | None``, ``tuple[X, ...]`` or ``list[X]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple, list):
        for inner in get_args(annotation):
            found = _inner_model(inner)
            if found is not None:
                return found
    return None
