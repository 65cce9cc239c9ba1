"""docs/troubleshooting.md quotes messages that the code really says."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SHORTEST = 9  # letters of a piece that says something


@cache
def _said() -> str:
    """All texts of the code, one per line; what is filled in is an ellipsis."""
    texts = [(ROOT / "Makefile").read_text(encoding="utf-8")]
    for package in ("longvila", "flows", "tasks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            texts += map(_text, ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return "\n".join(filter(None, texts))


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def _pieces() -> list[str]:
    first_cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    messages = [message for cell in first_cells for message in re.findall(r"`([^`]+)`", cell)]
    pieces = [piece.strip(" ()…:") for message in messages for piece in message.split("…")]
    return sorted({piece for piece in pieces if len(piece) >= SHORTEST})


def _reasons() -> list[str]:
    table = PAGE.split("### Reasons of rejections")[1].split("\n## ")[0]
    return sorted(
        {
            reason
            for line in table.splitlines()
            if line.startswith("| `")
            for reason in re.findall(r"`([a-z-]+)`", line.split("|")[1])
        }
    )


@pytest.mark.parametrize("piece", _pieces())
def test_the_code_says_what_the_page_quotes(piece: str) -> None:
    parts = [part for part in re.split(r"=(?=\W|$)", piece) if len(part) >= SHORTEST] or [piece]
    assert all(part in _said() for part in parts)


@pytest.mark.parametrize("reason", _reasons())
def test_the_reason_exists(reason: str) -> None:
    assert re.search(rf"^{re.escape(reason)}$", _said(), re.MULTILINE)
