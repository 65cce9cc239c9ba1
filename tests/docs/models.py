"""Tables of fields from pydantic models: recipes and records."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from longvila import records
from longvila.config import Recipe

LIMITS = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}", "min_length": "at least {}"}


def recipe_tables() -> str:
    """Every settings model that a recipe holds, in the order in which they are met."""
    return "\n\n".join(_section(model, path) for path, model in _walk(Recipe, ""))


def record_tables() -> str:
    """Every record, in the order of the module."""
    found = [
        item
        for item in vars(records).values()
        if inspect.isclass(item) and issubclass(item, records.Record) and item is not records.Record
    ]
    return "\n\n".join(_section(model, "") for model in found)


def _walk(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    seen: set[type[BaseModel]] = set()
    waiting = [(path, model)]
    while waiting:
        here, current = waiting.pop(0)
        if current in seen:
            continue
        seen.add(current)
        yield here, current
        inner = []
        for name, field in current.model_fields.items():
            for found in _models_in(field.annotation):
                mark = "[]" if get_origin(field.annotation) is tuple else ""
                inner.append((f"{here}.{name}{mark}".lstrip("."), found))
        waiting = inner + waiting


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def _section(model: type[BaseModel], path: str) -> str:
    title = f"### `{path}`: {model.__name__}" if path else f"### {model.__name__}"
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    table = ["| field | type | default | meaning |", "|---|---|---|---|", *rows]
    return "\n".join([title, "", inspect.cleandoc(model.__doc__ or ""), "", *table])


def _row(name: str, field: FieldInfo) -> str:
    kind = "`" + type_name(field.annotation).replace("|", "\\|") + "`"
    meaning = "; ".join(part for part in (field.description or "", _limits(field)) if part)
    return f"| `{name}` | {kind} | {_default(field)} | {meaning.replace('|', chr(92) + '|')} |"


def _limits(field: FieldInfo) -> str:
    said = [
        text.format(getattr(rule, name))
        for rule in field.metadata
        for name, text in LIMITS.items()
        if getattr(rule, name, None) is not None
    ]
    return ", ".join(said)


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "empty"
    if field.default is PydanticUndefined:
        return "required"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "its defaults"
    if value == () or value == "":
        return "empty"
    shown = list(value) if isinstance(value, tuple) else value
    return f"`{shown!r}`" if isinstance(shown, str | list) else f"`{shown}`"


def type_name(annotation: Any) -> str:
    """A type as one would write it: ``list of text`` types are given as in YAML, not as in Python."""
    if annotation is None or annotation is types.NoneType:
        return "none"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(inner) for inner in arguments)
    if origin in (tuple, list):
        inner = [item for item in arguments if item is not Ellipsis]
        many = len(arguments) != len(inner) or origin is list
        names = ", ".join(type_name(item) for item in inner)
        return f"list of {names}" if many else f"[{names}]"
    if origin is dict:
        return f"mapping {type_name(arguments[0])} → {type_name(arguments[1])}"
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return " | ".join(str(member.value) for member in annotation)
    return {str: "text", int: "int", float: "float", bool: "bool", Any: "any"}.get(
        annotation, getattr(annotation, "__name__", str(annotation))
    )
