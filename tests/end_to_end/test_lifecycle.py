"""The whole life of the smallest recipe, as a user runs it: killed in the middle, gone on with, run again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import DEMO

LONGVILA = str(Path(sys.executable).parent / "longvila")
# One video to train on, one held out, one planted duplicate-free extra, one cut short, one that is gone.
VIDEOS = {
    "09-lesson": "train",
    "05-workshop": "heldout",
    "10-meadow-again": "train",
    "11-cut-short": "train",
    "12-lost": "train",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources with relative addresses, so that the flow serves and fetches them over HTTP."""
    made = tmp_path_factory.mktemp("lifecycle")
    (made / "videos").mkdir()
    lines = ["sources:"]
    for name, split in VIDEOS.items():
        lines.append(f"  - {{source_id: {name}, url: videos/{name}.mp4, split: {split}, license: CC BY 3.0}}")
        if (DEMO / "videos" / f"{name}.mp4").is_file():
            shutil.copy(DEMO / "videos" / f"{name}.mp4", made / "videos")
    (made / "sources.yaml").write_text("\n".join(lines) + "\n")
    return made


def command(folder: Path) -> list[str]:
    return [
        *(LONGVILA, "flow", "run", "lifecycle", "--recipe", "tiny", "--workspace", str(folder / "ws")),
        *changes(folder),
    ]


def changes(folder: Path) -> list[str]:
    """Fewer videos than the recipe has, so more questions of each."""
    texts = (
        f"data.sources={folder / 'sources.yaml'}",
        "data.questions.stride_s=2",
        "data.questions.max_per_video=200",
    )
    return [part for text in texts for part in ("--set", text)]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"OMP_NUM_THREADS": "1"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(arguments) or command(folder),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def launches(folder: Path) -> dict[str, dict[str, object]]:
    """The launch record of every training run, by the run's name without its fingerprint."""
    found = (folder / "ws" / "runs").glob("*/launch.json")
    return {path.parent.name.rpartition("-")[0]: json.loads(path.read_text()) for path in found}


def is_alive(record: dict[str, object]) -> bool:
    pid = record.get("pid")
    return isinstance(pid, int) and psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"


@pytest.mark.timeout(600)
def test_killed_in_the_middle_of_training_it_can_be_gone_on_with(folder: Path) -> None:
    with (folder / "first.log").open("wb") as log:
        process = subprocess.Popen(command(folder), env=environment(), stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 400
    while launches(folder).get("pretrain", {}).get("state") != "running":
        assert process.poll() is None, (folder / "first.log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert is_alive(launches(folder)["pretrain"]), "the trainer died with its supervisor"


@pytest.mark.timeout(900)
def test_started_again_it_joins_the_trainer_and_ends_with_a_report(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    report = Path(done.stdout.splitlines()[-1])
    assert report == folder / "ws" / "report.html"
    page = report.read_text(encoding="utf-8")
    for said in ("align", "long_sft", "no-extension", "truncated", "gone"):
        assert said in page, said
    assert {name: record["attempt"] for name, record in launches(folder).items()} == dict.fromkeys(
        ("align", "pretrain", "short_sft", "extend_context", "long_sft", "no-extension"), 1
    )


@pytest.mark.timeout(300)
def test_run_again_with_nothing_changed_it_starts_no_trainer(folder: Path) -> None:
    before, report = launches(folder), (folder / "ws" / "report.html").stat().st_mtime_ns
    began = time.monotonic()
    done = run(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert launches(folder) == before
    assert (folder / "ws" / "report.html").stat().st_mtime_ns == report
    assert "started the trainer" not in done.stderr
    assert time.monotonic() - began < 60 * max(1.0, os.getloadavg()[0] / 2)


def test_its_runs_and_results_can_be_looked_at(folder: Path) -> None:
    status = run(folder, LONGVILA, "train", "status", str(folder / "ws"), "--json")
    assert {row["state"] for row in json.loads(status.stdout)} == {"complete"}
    results = sorted((folder / "ws" / "reports").glob("*/result.json"))
    assert len(results) == 7
    table = run(folder, LONGVILA, "eval", "compare", *map(str, results))
    assert "questions, text only" in table.stdout
    logs = run(folder, LONGVILA, "train", "logs", str(next((folder / "ws" / "runs").glob("align-*"))))
    assert logs.returncode == 0


def test_its_checkpoint_answers_a_question(folder: Path) -> None:
    video = DEMO / "videos" / "05-workshop.mp4"
    checkpoint = folder / "ws" / "checkpoints" / "long_sft"
    done = run(folder, LONGVILA, "ask", str(checkpoint), str(video), "which colour covers most", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames_used"] > 0


@pytest.mark.timeout(300)
def test_ctrl_c_ends_training_with_a_checkpoint(folder: Path) -> None:
    launch = [LONGVILA, "train", "launch", "align", "--recipe", "tiny", "--workspace", str(folder / "ws")]
    launch += ["--engine", "torch"]
    changed = [*changes(folder), "--set", "stages.align.steps=4000"]
    with (folder / "stop.log").open("wb") as log:
        process = subprocess.Popen(
            [*launch, *changed], env=environment(), stdout=log, stderr=subprocess.STDOUT
        )
    said = folder / "stop.log"
    deadline = time.monotonic() + 200
    while '"note": "loss' not in said.read_text():
        assert process.poll() is None, said.read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=90) == 5, said.read_text()[-3000:]
    assert "Traceback" not in said.read_text().partition("the end of")[0]
    stopped = [row for row in _status(folder) if row["state"] == "stopped"]
    assert len(stopped) == 1
    assert 0 < stopped[0]["step"] < 4000


def _status(folder: Path) -> list[dict[str, object]]:
    return json.loads(run(folder, LONGVILA, "train", "status", str(folder / "ws"), "--json").stdout)
