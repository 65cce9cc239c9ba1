"""Promises about the repository itself."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from longvila.errors import ExitCode
from tests.check_links import anchors, broken_links

ROOT = Path(__file__).resolve().parents[1]


def test_datasets_folder_holds_declarations_only() -> None:
    assert not list((ROOT / "datasets").rglob("*.py"))


def test_datasets_folder_does_not_hide_the_package_of_that_name() -> None:
    code = "import datasets; print(getattr(datasets, '__file__', None))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert str(ROOT / "datasets") not in out.stdout


def test_library_imports_neither_prefect_nor_deepspeed() -> None:
    code = (
        "import importlib, sys\n"
        "names = ['parallel', 'model', 'evaluation.needle', 'inference']\n"
        "[importlib.import_module('longvila.' + n) for n in names]\n"
        "bad = {'prefect', 'deepspeed', 'webdataset', 'pyarrow', 'duckdb', 'av'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(bad)}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_constraints_satisfy_the_requirements() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints/cpu.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[requirement.name]), text


def test_exit_codes_are_those_that_the_documentation_names() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "FAILED": 1,
        "USAGE": 2,
        "TOO_MANY_REJECTIONS": 3,
        "TRANSIENT": 4,
        "STOPPED": 5,
        "INTERRUPTED": 130,
    }


def test_link_checker_finds_what_is_broken(tmp_path: Path) -> None:
    page = ROOT / "docs" / "_link_probe.md"
    try:
        page.write_text("# One heading\n[a](#one-heading) [b](nowhere.md) [c](#no-such)\n")
        problems = broken_links(page)
    finally:
        page.unlink()
    assert len(problems) == 2


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# Bad *input*, and `exit codes`\n")
    assert anchors(page) == {"bad-input-and-exit-codes"}


def imported_names(folder: Path) -> set[str]:
    """All modules that the files of a folder import, anywhere in them."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def test_model_never_talks_to_other_processes() -> None:
    names = imported_names(ROOT / "longvila" / "model")
    assert not [name for name in names if name.startswith("torch.distributed")]
    of_parallel = {".".join(name.split(".")[:3]) for name in names if name.startswith("longvila.parallel.")}
    assert of_parallel <= {f"longvila.parallel.{name}" for name in ("decoders", "loss", "memory", "rotary")}


def test_data_takes_only_the_layout_from_the_parallel_layer() -> None:
    names = imported_names(ROOT / "longvila" / "data")
    of_parallel = {".".join(name.split(".")[:3]) for name in names if name.startswith("longvila.parallel.")}
    assert of_parallel <= {"longvila.parallel.layout", "longvila.parallel.plan"}
