"""``--set a.b=value``: changes to a configuration before it is checked.

A path walks mappings by key and lists by the ``name`` of their items, or by number:
``stages.short_sft.steps=10``, ``data.needle_sets.0.num_samples=64``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from longvila.errors import ConfigError


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``["a.b=1", …]`` as ``{"a.b": 1}``; values are YAML: ``true``, ``null``, ``[8, 16]``."""
    parsed: dict[str, Any] = {}
    for text in texts:
        path, separator, value = text.partition("=")
        path = path.strip()
        if not separator or not path or ".." in f".{path}.":
            raise ConfigError(
                f"--set {text!r} is not of the form a.b=value, for example stages.short_sft.steps=10"
            )
        try:
            parsed[path] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--set {text!r}: the value is not YAML ({error.__class__.__name__}); quote it"
            ) from error
    return parsed


def apply_overrides(data: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``data`` with every override in it; ``ConfigError`` where a path cannot go."""
    result = copy.deepcopy(data)
    for path, value in overrides.items():
        _set(result, path, value)
    return result


def _set(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    node: Any = data
    for depth, part in enumerate(parents):
        where = ".".join(parents[:depth])
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = node[_place(node, part, where=where, path=path)]
    node[_place(node, last, where=".".join(parents), path=path)] = value


def _place(node: Any, part: str, *, where: str, path: str) -> Any:
    """The key or the list index that ``part`` means in ``node``."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise ConfigError(f"--set {path}: {where} is {node!r} and has nothing below it")
    names = [item.get("name") if isinstance(item, dict) else None for item in node]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(node):
        return int(part)
    known = ", ".join(str(name) for name in names if name) or f"0 … {len(node) - 1}"
    raise ConfigError(f"--set {path}: {where} has no item {part!r}. Known: {known}")
