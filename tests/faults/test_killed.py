"""The whole life killed twice, with everything that belongs to it, against one that was left alone.

Once while shards are written, once in the middle of training: flow, Prefect's server, launcher and ranks die
at once, as when a machine loses power.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.test_lifecycle import environment, launches
from tests.flows.conftest import DEMO

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

LONGVILA = str(Path(sys.executable).parent / "longvila")
VIDEOS = {"09-lesson": "train", "05-workshop": "heldout"}
STEPS, SAVED_EVERY = 40, 4
CHANGES = (
    "data.questions.stride_s=2",
    "data.questions.max_per_video=200",
    "controls=[]",
    "evaluation.needle.frames=[4]",
    f"stages.short_sft.steps={STEPS}",
    f"stages.short_sft.checkpoint_every_steps={SAVED_EVERY}",
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    lines = ["sources:"]
    for name, split in VIDEOS.items():
        shutil.copy(DEMO / "videos" / f"{name}.mp4", folder)
        lines.append(f"  - {{url: {name}.mp4, split: {split}, license: CC BY 3.0}}")
    (folder / "sources.yaml").write_text("\n".join(lines) + "\n")
    return folder / "sources.yaml"


def test_killed_twice_it_ends_with_the_weights_of_a_run_left_alone(sources: Path, tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    finish(alone, sources)

    kill_when(killed, sources, lambda: is_writing_shards(killed / "ws"))
    written = marks(killed / "ws" / "manifests", "*.parquet") | marks(killed / "ws" / "shards", "*.tar")
    assert (killed / "ws" / "shards" / "questions" / "index.parquet").is_file()
    assert not launches(killed)

    kill_when(killed, sources, lambda: len(metrics(killed)) > SAVED_EVERY + 1)
    stopped_at, killed_at = len(metrics(killed)), time.time()
    assert stopped_at < STEPS, "it was over before it was killed"
    finish(killed, sources)

    assert weights(killed / "ws") == weights(alone / "ws")
    assert len(weights(alone / "ws")) >= 5 * 3
    now = marks(killed / "ws" / "manifests", "*.parquet") | marks(killed / "ws" / "shards", "*.tar")
    assert {path: now[path] for path in written} == written, "what was finished was made again"
    attempts = {name: record["attempt"] for name, record in launches(killed).items()}
    assert attempts.pop("short_sft") == 2
    assert set(attempts.values()) == {1}
    lines = metrics(killed)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    kept = sum(line["time"] < killed_at for line in lines)
    assert kept >= stopped_at - SAVED_EVERY - 1, "more than the steps since the last checkpoint were repeated"


def command(folder: Path, sources: Path) -> list[str]:
    changes = [part for text in (f"data.sources={sources}", *CHANGES) for part in ("--set", text)]
    return [
        *(LONGVILA, "flow", "run", "lifecycle", "--recipe", "tiny", "--workspace", str(folder / "ws")),
        *changes,
    ]


def finish(folder: Path, sources: Path) -> None:
    done = subprocess.run(
        command(folder, sources), env=environment(), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "ws" / "report.html").is_file()


def kill_when(folder: Path, sources: Path, now: Callable[[], bool]) -> None:
    """Start the flow and kill all that belongs to it as soon as ``now`` says so."""
    folder.mkdir(exist_ok=True)
    with (folder / "killed.log").open("wb") as log:
        flow = psutil.Popen(command(folder, sources), env=environment(), stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 400
    while not now():
        assert flow.poll() is None, (folder / "killed.log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    doomed = family(flow, folder)
    for process in doomed:
        process.suspend()
    doomed = family(flow, folder)
    for process in doomed:
        process.kill()
    psutil.wait_procs(doomed, timeout=30)
    flow.wait(30)


def family(flow: psutil.Process, folder: Path) -> list[psutil.Process]:
    """The flow, its children, and the trainers of its workspace with theirs, which are detached."""
    found = {flow, *flow.children(recursive=True)}
    for process in psutil.process_iter(["cmdline"]):
        if str(folder / "ws") in " ".join(process.info["cmdline"] or ()):
            found |= {process, *process.children(recursive=True)}
    return [process for process in found if process.is_running()]


def is_writing_shards(workspace: Path) -> bool:
    """The first data set is whole, and a tar of another is being written."""
    first = workspace / "shards" / "questions" / "index.parquet"
    folders = [path for path in workspace.glob("shards/*") if path.is_dir()]
    return first.is_file() and any(not (path / "index.parquet").is_file() for path in folders)


def marks(folder: Path, pattern: str) -> dict[str, tuple[int, int]]:
    """When every file was made: its inode and time."""
    found = {str(path): path.stat() for path in folder.rglob(pattern)}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def run_folder(folder: Path) -> Path | None:
    return next((folder / "ws" / "runs").glob("short_sft-*"), None)


def metrics(folder: Path) -> list[dict[str, float]]:
    """What is written of every step of the stage that is killed; a line may be half written."""
    run = run_folder(folder)
    if run is None or not (run / "metrics.jsonl").is_file():
        return []
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def weights(workspace: Path) -> dict[str, str]:
    """The content of every checkpoint's weights."""
    return {
        path.relative_to(workspace).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for checkpoint in (workspace / "checkpoints").iterdir()
        for path in checkpoint.glob("*/*.safetensors")
    }
