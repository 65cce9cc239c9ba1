"""``longvila up`` as an engineer uses it: server and worker on loopback, a run started over the API."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from longvila.config import load_sources
from longvila.planning import free_port, is_free
from tasks.contents import BuiltDataset
from tasks.refs import ManifestRef, WorkspaceRef

ROOT = Path(__file__).resolve().parents[2]
LONGVILA = str(Path(sys.executable).parent / "longvila")
START_S = 240


class Stack:
    """A running ``longvila up``."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / "up.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [LONGVILA, "up", "--home", str(folder / "prefect"), "--port", str(self.port)],
                cwd=ROOT,
                env=kept,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_S
        while "is waiting" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def api(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Ask Prefect's REST API."""
        return httpx.post(f"http://127.0.0.1:{self.port}/api/{path}", json=body, timeout=60)

    def stop(self) -> int:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    started = Stack(tmp_path_factory.mktemp("up"))
    yield started
    if started.process.poll() is None:
        started.stop()


def deployments(stack: Stack) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in stack.api("deployments/filter", {}).json()}


@pytest.mark.timeout(400)
def test_all_deployments_are_there_and_the_refresh_has_its_schedule(stack: Stack) -> None:
    found = deployments(stack)
    assert set(found) == {
        "lifecycle",
        "build-dataset",
        "refresh-dataset",
        "train-stage",
        "train-pipeline",
        "evaluate-checkpoint",
    }
    (schedule,) = found["refresh-dataset"]["schedules"]
    assert schedule["schedule"] == {"cron": "0 3 * * *", "timezone": "UTC", "day_or": True}
    assert schedule["active"]
    assert "description" in str(found["lifecycle"]["parameter_openapi_schema"])
    page = httpx.get(f"http://127.0.0.1:{stack.port}/", follow_redirects=True, timeout=30)
    assert "<html" in page.text.lower()


@pytest.mark.timeout(400)
def test_a_run_started_over_the_api_completes(stack: Stack, tmp_path: Path) -> None:
    from flows.state import marks_of, remember_dataset

    nothing = ManifestRef(step="none", key="manifests/none/none.parquet")
    built = BuiltDataset(
        datasets={},
        sources=marks_of(load_sources("demo")),
        videos=nothing,
        scans=(),
        captions=(),
        questions=nothing,
        steps=(),
    )
    remember_dataset(WorkspaceRef(root=str(tmp_path)), "demo", built)
    refresh = deployments(stack)["refresh-dataset"]["id"]
    params = {"recipe": "demo", "workspace": str(tmp_path)}
    started = stack.api(f"deployments/{refresh}/create_flow_run", {"parameters": {"params": params}})
    assert started.status_code == 201, started.text
    state = wait_for(stack, started.json()["id"])
    assert (state["type"], state["name"]) == ("COMPLETED", "Skipped"), state


@pytest.mark.timeout(400)
def test_a_build_started_over_the_api_writes_its_shards_and_shows_its_progress(
    stack: Stack, tmp_path: Path
) -> None:
    build = deployments(stack)["build-dataset"]["id"]
    params = {"recipe": "tiny", "workspace": str(tmp_path / "ws"), "overrides": small_build(tmp_path)}
    started = stack.api(f"deployments/{build}/create_flow_run", {"parameters": {"params": params}})
    assert started.status_code == 201, started.text
    run_id = started.json()["id"]
    state = wait_for(stack, run_id)
    assert state["type"] == "COMPLETED", state
    made = {path.parent.name for path in (tmp_path / "ws" / "shards").glob("*/index.parquet")}
    assert made == {"questions", "frame-captions"}
    found = stack.api("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}}).json()
    assert {"progress", "table"} <= {artifact["type"] for artifact in found}
    runs = stack.api("task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [run_id]}}}).json()
    assert {run["state_type"] for run in runs} == {"COMPLETED"}


def small_build(folder: Path) -> list[str]:
    """Two videos, and of the composed sets one only."""
    lines = ["sources:"]
    for name, split in (("09-lesson", "train"), ("05-workshop", "heldout")):
        path = ROOT / "datasets" / "demo" / "videos" / f"{name}.mp4"
        lines.append(f"  - {{url: {path}, split: {split}, license: CC BY 3.0}}")
    (folder / "sources.yaml").write_text("\n".join(lines) + "\n")
    stages = ("align", "pretrain", "short_sft", "extend_context", "long_sft")
    return [
        f"data.sources={folder / 'sources.yaml'}",
        "data.questions.stride_s=2",
        "data.questions.max_per_video=200",
        "data.needle_sets=[]",
        "data.recall_texts=[]",
        *(f"stages.{name}.mixture=[{{dataset: questions}}]" for name in stages),
    ]


@pytest.mark.timeout(60)
def test_a_wrong_parameter_is_refused_by_the_form(stack: Stack) -> None:
    refresh = deployments(stack)["refresh-dataset"]["id"]
    body = {"parameters": {"params": {"recipee": "demo"}}}
    refused = stack.api(f"deployments/{refresh}/create_flow_run", body)
    assert refused.status_code == 409
    assert "recipee" in refused.text


@pytest.mark.timeout(120)
def test_a_port_in_use_is_told_and_ctrl_c_ends_everything(stack: Stack, tmp_path: Path) -> None:
    second = subprocess.run(
        [LONGVILA, "up", "--home", str(tmp_path), "--port", str(stack.port)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert second.returncode == 2
    assert f"Port {stack.port} for Prefect's server is in use" in " ".join(second.stderr.split())
    assert stack.stop() == 0
    assert is_free(stack.port)


def wait_for(stack: Stack, run_id: str) -> dict[str, Any]:
    """The final state of a flow run."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        answer = httpx.get(f"http://127.0.0.1:{stack.port}/api/flow_runs/{run_id}", timeout=60)
        state = answer.json()["state"]
        if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return state
        time.sleep(0.5)
    raise AssertionError("the run did not end")
