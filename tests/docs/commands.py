"""Tables of commands and options, from the command line itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer.main

from flows.cli.app import app

KINDS = {"Path": "PATH", "int": "N", "float": "NUMBER"}


def all_commands() -> dict[str, Any]:
    """Every command by its words: ``{"longvila": …, "longvila flow run": …}``."""
    return dict(_walk(typer.main.get_command(app), "longvila"))


def _walk(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    yield words, command
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        yield from _walk(inner, f"{words} {name}")


def command_tables() -> str:
    """One section per command that does something."""
    parts = []
    for words, command in all_commands().items():
        if getattr(command, "commands", None) and words != "longvila":
            continue
        title = "### Options of every command" if words == "longvila" else f"### {_usage(words, command)}"
        said = "" if words == "longvila" else re.sub(r"\s+", " ", inspect.cleandoc(command.help or ""))
        rows = [_row(param) for param in command.params if param.name != "help"]
        table = ["| | | default |", "|---|---|---|", *rows] if rows else []
        parts.append("\n".join(part for part in (title, "", said, "", *table) if part is not None).rstrip())
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(parts))


def _usage(words: str, command: Any) -> str:
    arguments = [param for param in command.params if is_argument(param)]
    names = [param.name.upper() + ("…" if param.nargs == -1 else "") for param in arguments]
    shown = [name if param.required else f"[{name}]" for name, param in zip(names, arguments, strict=True)]
    return "`" + " ".join([words, *shown]) + "`"


def is_argument(param: Any) -> bool:
    """Whether a parameter stands in its place, without an option's name."""
    return param.param_type_name == "argument"


def _row(param: Any) -> str:
    name = param.name.upper() if is_argument(param) else ", ".join(param.opts)
    if not is_argument(param) and not param.is_flag:
        name += f" {param.metavar or _kind(param)}"
    return f"| `{name}` | {(param.help or '').replace('|', chr(92) + '|')} | {_default(param)} |"


def _kind(param: Any) -> str:
    kind = str(param.type_descriptor.annotation)
    return next((word for part, word in KINDS.items() if part in kind), "TEXT")


def _default(param: Any) -> str:
    if param.required:
        return "required"
    value = param.default
    if value is None or value is False or value == "" or callable(value):
        return ""
    return f"`{value}`"
