"""docs/paper_map.md leads somewhere: every file and every test that it names exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`((?:longvila|flows|tasks|tests|datasets|docs|benchmarks|infra)/[\w./-]+)(?:::(\w+))?`")


def _named() -> list[tuple[str, str]]:
    text = (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8")
    return sorted(set(NAMED.findall(text)))


def test_the_map_names_files_and_tests() -> None:
    named = _named()

    assert len(named) > 50
    assert any(name for _, name in named)


@pytest.mark.parametrize(("path", "name"), _named())
def test_what_the_map_names_exists(path: str, name: str) -> None:
    file = ROOT / path

    assert file.exists(), f"docs/paper_map.md names {path}"
    if name:
        assert name in _definitions(file), f"{path} defines no {name}"


def _definitions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
