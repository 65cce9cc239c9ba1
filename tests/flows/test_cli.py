from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from flows.cli import main
from longvila.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
LONGVILA = str(Path(sys.executable).parent / "longvila")


class Done(NamedTuple):
    """What a command gave."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def longvila(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command in this process; what it does to logging is put back."""

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, said.out, said.err)

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield run
    root.handlers, root.level = handlers, level


def longvila_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return subprocess.run(
        [LONGVILA, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def test_help_is_quick_and_names_every_command() -> None:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = longvila_process("--help")
        times.append(time.perf_counter() - began)
    assert done.returncode == 0
    assert min(times) < 0.5, times
    for command in ("doctor", "ask", "up", "task", "flow", "train", "eval", "config"):
        assert re.search(rf"^  {command} ", done.stdout, re.MULTILINE), command


def test_help_loads_neither_prefect_nor_torch() -> None:
    code = (
        "import sys, flows.cli; sys.exit(bool({'prefect', 'torch', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_doctor_finds_this_environment_whole(longvila: Command, tmp_path: Path) -> None:
    done = longvila("doctor", "--json", "--workspace", str(tmp_path))
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, checks
    assert {"python", "torch", "prefect", "sqlalchemy", "ffmpeg", "disk", "port", "datasets"} <= set(checks)
    assert all(check["ok"] for check in checks.values())


def test_config_show_applies_changes_and_loads_back(longvila: Command, tmp_path: Path) -> None:
    shown = longvila("config", "show", "longvila-7b", "--set", "stages.align.steps=7")
    assert "steps: 7" in shown.stdout
    (tmp_path / "mine.yaml").write_text(shown.stdout)
    again = longvila("config", "show", str(tmp_path / "mine.yaml"))
    assert again.stdout == shown.stdout


def test_config_validate_and_schema(longvila: Command) -> None:
    assert longvila("config", "validate", "demo").stdout.startswith("demo is valid: align, pretrain")
    assert json.loads(longvila("config", "schema").stdout)["title"] == "Recipe"
    assert "longvila-7b" in longvila("config", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("config", "show", "longvila-8b"), "Did you mean 'longvila-7b'?"),
        (("config", "show", "demo", "--set", "stages.align.stepps=1"), "Did you mean 'steps'?"),
        (("config", "show", "demo", "--set", "oops"), "not of the form a.b=value"),
        (("config", "show", "/nowhere/a.yaml"), "does not exist"),
        (("flow", "run", "lifecyle"), "Did you mean 'lifecycle'?"),
        (("flow", "run", "lifecycle", "--param", "engin=torch"), "Did you mean 'engine'?"),
        (("flow", "run", "lifecycle", "--param", "engine=jax"), "'deepspeed' or 'torch'"),
        (
            ("flow", "run", "lifecycle", "-c", "/nowhere/p.yaml"),
            "parameter file /nowhere/p.yaml does not exist",
        ),
        (("task", "show", "fetch_bach"), "Did you mean 'fetch_batch'?"),
        (("train", "status", "/nowhere"), "holds no training runs"),
        (("train", "logs", "/nowhere"), "is not the folder of a training run"),
        (("eval", "compare", "/nowhere/result.json"), "no evaluation result at"),
        (("ask", "/nowhere", "a.mp4", "what"), "/nowhere"),
        (("ask", "long_sft", "a.mp4", "what"), "WORKSPACE/checkpoints/long_sft"),
        (("flow", "run", "lifecycle", "--workspace", ""), "workspace"),
        (("nonsense",), "No such command"),
        (("up", "--deployments", "/nowhere/prefect.yaml"), "There is no /nowhere/prefect.yaml"),
    ],
)
def test_wrong_usage_ends_with_one_block_and_code_2(
    longvila: Command, arguments: tuple[str, ...], said: str
) -> None:
    done = longvila(*arguments)
    assert said in " ".join(done.stderr.split()), done.stderr
    assert done.returncode == ExitCode.USAGE
    assert "Traceback" not in done.stderr + done.stdout
    assert len(done.stderr.splitlines()) < 12


def test_debug_shows_the_traceback(longvila: Command) -> None:
    done = longvila("--debug", "config", "show", "longvila-8b")
    assert "Traceback" in done.stderr
    assert done.returncode == ExitCode.USAGE


def test_flows_and_tasks_are_listed(longvila: Command) -> None:
    assert {row["name"] for row in json.loads(longvila("flow", "list", "--json").stdout)} == {
        "lifecycle",
        "build_dataset",
        "refresh",
        "train_stage",
        "train_pipeline",
        "evaluate",
    }
    assert len(json.loads(longvila("task", "list", "--json").stdout)) >= 20


def test_one_task_runs_without_a_server(longvila: Command, tmp_path: Path) -> None:
    config = tmp_path / "recall.yaml"
    config.write_text(
        f"workspace: {{root: {tmp_path / 'ws'}}}\n"
        "config: {name: recall, num_samples: 12, min_tokens: 20, max_tokens: 60}\n"
    )
    done = longvila(
        "task", "run", "recall-shards", "-c", str(config), "--set", "config.num_samples=8", "--json"
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "result"
    assert events[-1]["result"]["num_samples"] == 8
    assert any(event["event"] == "progress" and event["done"] == 8 for event in events)
    again = longvila(
        "task", "run", "verify-shards", "--set", f"workspace.root={tmp_path / 'ws'}", "--set", "name=recall"
    )
    assert again.returncode == 0, again.stderr


def test_task_parameters_are_checked_before_anything_runs(longvila: Command, tmp_path: Path) -> None:
    done = longvila(
        "task", "run", "recall-shards", "--set", f"workspace.root={tmp_path}", "--set", "config.name=x"
    )
    assert "config.num_samples: missing." in done.stderr.replace("\n", " ")
    assert done.returncode == ExitCode.USAGE
    assert not list(tmp_path.iterdir())


def test_task_show_prints_schema_and_retries(longvila: Command) -> None:
    shown = json.loads(longvila("task", "show", "fetch_batch").stdout)
    assert shown["retries"] == 3
    assert set(shown["parameters"]["properties"]) == {"workspace", "sources", "config", "base", "used_bytes"}
