"""The commands that the pages show can be typed: the command exists, and so does each of its options."""

import re
import shlex
from pathlib import Path

import pytest

from tests.docs.commands import all_commands, is_argument

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(```|~~~).*?\n(.*?)^\1", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"^([a-z0-9-]+):.*?## ", re.MULTILINE)


def _lines(page: Path) -> list[str]:
    """The command lines of a page's code blocks, continued lines joined, comments and prompts left out."""
    blocks = [body.replace("\\\n", " ") for _, body in FENCE.findall(page.read_text(encoding="utf-8"))]
    inline = re.findall(r"`((?:longvila|make) [^`\n]+)`", FENCE.sub("", page.read_text(encoding="utf-8")))
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line for line in [*lines, *inline] if line.startswith(("longvila ", "make "))]


def _words(line: str) -> list[str]:
    words = shlex.split(line, comments=True)
    ends = [i for i, word in enumerate(words) if word in ("|", ">", "&&", "&", ";", "…", "2>&1")]
    return words[: ends[0]] if ends else words


COMMANDS = sorted({(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in _lines(page)})


@pytest.mark.parametrize(("page", "line"), [c for c in COMMANDS if c[1].startswith("longvila ")])
def test_longvila_command_exists(page: str, line: str) -> None:
    commands, words = all_commands(), _words(line)
    words = [word for word in words if word not in ("--debug", "--version")]
    name = max((n for n in commands if words[: len(n.split())] == n.split()), key=len)
    command, rest = commands[name], words[len(name.split()) :]
    if rest and rest != ["--help"] and getattr(command, "commands", None):
        placeholders = all(word.isupper() for word in rest)
        assert placeholders, f"{page}: {line}: there is no such command"
    known = {option for param in command.params if not is_argument(param) for option in param.opts}
    unknown = [
        word for word in rest if word.startswith("-") and word.partition("=")[0] not in {*known, "--help"}
    ]
    assert not unknown, f"{page}: {line}: {name} has no {unknown}"


@pytest.mark.parametrize(("page", "line"), [c for c in COMMANDS if c[1].startswith("make ")])
def test_make_target_exists(page: str, line: str) -> None:
    targets = set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8"))) | {"help"}
    named = [word for word in _words(line)[1:] if "=" not in word]

    assert set(named) <= targets, f"{page}: {line}"
