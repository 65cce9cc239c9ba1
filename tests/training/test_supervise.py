"""The supervisor with real trainers: started, killed, stopped, joined, hanging, broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from longvila.config.stage import LoraConfig
from longvila.errors import ConfigError, Stopped, TrainingInterrupted, TransientError
from longvila.training import Outcome, Progress, RunPaths, RunSpec, StageOutcome, launch
from longvila.training.launch import local
from longvila.training.runfiles import read_model
from longvila.training.supervise import run_stage
from tests.training import tiny

POLL_S = 0.05


def _run(spec: RunSpec, on_progress: Callable[[Progress], None] | None = None) -> StageOutcome:
    return run_stage(spec, on_progress=on_progress, poll_s=POLL_S)


def _ranks(spec: RunSpec) -> list[psutil.Process]:
    return [psutil.Process(rank.pid) for rank in launch.ranks(spec.paths)]


@pytest.fixture(autouse=True, scope="module")
def _nothing_stays(inputs: Path) -> Iterator[None]:
    """Trainers are detached: a test that fails would leave its own behind."""
    yield
    for folder in (inputs / "runs").iterdir():
        local.kill(RunPaths(folder))


@pytest.fixture(scope="module")
def whole(inputs: Path) -> RunSpec:
    """A run on two processes that nothing disturbed."""
    spec = tiny.spec(inputs, "whole", steps=8)
    seen: list[Progress] = []
    outcome = _run(spec, seen.append)
    assert (outcome.step, outcome.reused, outcome.attempts) == (8, False, 1)
    assert seen[-1].step == 8
    return spec


def _alone(inputs: Path, name: str, **changes: object) -> RunSpec:
    """A run on one process without DeepSpeed, which starts faster."""
    settings = {"engine": "torch", "num_processes": 1, "rows_per_step": 1, **changes}
    return tiny.spec(inputs, name, **settings)


def test_a_complete_run_answers_at_once(whole: RunSpec) -> None:
    outcome = _run(whole)
    assert (outcome.reused, outcome.attempts, outcome.step) == (True, 0, 8)
    assert not launch.ranks(whole.paths)


def test_every_step_is_written_down(whole: RunSpec) -> None:
    import json

    lines = [json.loads(line) for line in whole.paths.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert all(line["tokens"] > 0 and 0 <= line["padding_share"] < 1 for line in lines)
    assert list((whole.paths.logs / "tensorboard").glob("events.out.tfevents.*"))
    outcome = read_model(whole.paths.outcome, Outcome)
    assert outcome is not None
    assert outcome.tokens == sum(line["tokens"] for line in lines)


def test_old_checkpoints_go_and_latest_names_the_newest(whole: RunSpec) -> None:
    names = sorted(path.name for path in whole.paths.checkpoints.iterdir())
    assert names == ["latest", "step-000004", "step-000006"]
    assert (whole.paths.checkpoints / "latest").read_text() == "step-000006"


def test_another_fingerprint_is_refused(whole: RunSpec, inputs: Path) -> None:
    with pytest.raises(ConfigError, match=r"stage\.steps.*\n?.*new run folder"):
        _run(tiny.spec(inputs, "whole", steps=9))


def test_a_killed_rank_is_resumed_to_the_same_weights(whole: RunSpec, inputs: Path) -> None:
    spec = tiny.spec(inputs, "killed", steps=8)
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if not killed and progress.step >= 3:
            victim = _ranks(spec)[-1]
            killed.append(victim.pid)
            victim.send_signal(signal.SIGKILL)

    outcome = _run(spec, kill)
    assert killed
    assert (outcome.step, outcome.attempts) == (8, 2)
    tiny.same_weights(spec.paths.export, whole.paths.export)
    lines = spec.paths.metrics.read_text().splitlines()
    assert len(lines) == 8


def test_a_supervisor_that_dies_is_followed_by_one_that_joins_and_stops(inputs: Path) -> None:
    spec = _alone(inputs, "joined", steps=4000, checkpoint_every_steps=1000)
    code = f"""
import os, signal
from longvila.training import RunSpec
from longvila.training.supervise import run_stage
def die(progress):
    if progress.step: os.kill(os.getpid(), signal.SIGKILL)
run_stage(RunSpec.model_validate_json({spec.model_dump_json()!r}), on_progress=die, poll_s=0.05)
"""
    first = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert first.returncode == -signal.SIGKILL, first.stderr
    before = launch.attach(spec.paths)
    assert before is not None
    at = read_model(spec.paths.progress, Progress)
    assert at is not None
    steps: list[int] = []

    def enough() -> bool:
        return len(steps) >= 2

    with pytest.raises(Stopped, match="Run it again"):
        run_stage(spec, on_progress=lambda p: steps.append(p.step), should_stop=enough, poll_s=POLL_S)
    assert steps[0] >= at.step
    assert not launch.living(spec.paths)
    outcome = read_model(spec.paths.outcome, Outcome)
    assert outcome is not None
    assert (outcome.status, read_model(spec.paths.launch, launch.LaunchRecord)) == ("stopped", before)
    assert (spec.paths.checkpoints / "latest").read_text() == f"step-{outcome.step:06d}"


def test_a_wrong_setting_that_only_the_trainer_sees_is_named(inputs: Path) -> None:
    spec = _alone(inputs, "wrong", trains=("llm",), lora=LoraConfig(targets=("query",)), max_retries=3)
    with pytest.raises(
        ConfigError, match=r"(?s)lora\.targets names \['query'\].*no step yet|no step yet.*'query'"
    ):
        _run(spec)
    assert not (spec.paths.logs / "attempt-02").exists()


def test_two_supervisors_do_not_share_a_folder(whole: RunSpec) -> None:
    import fcntl

    with whole.paths.lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TransientError, match="another supervisor"):
            _run(whole)


@pytest.mark.faults
def test_a_rank_that_hangs_is_found_and_its_peers_say_where_they_wait(inputs: Path) -> None:
    changes = {"steps": 20_000, "checkpoint_every_steps": 20_000, "max_retries": 0, "step_timeout_s": 8.0}
    spec = tiny.spec(inputs, "hanging", **changes)
    stopped: list[psutil.Process] = []

    def freeze(progress: Progress) -> None:
        if not stopped and progress.step >= 2:
            stopped.append(_ranks(spec)[-1])
            os.kill(stopped[0].pid, signal.SIGSTOP)

    with pytest.raises(TrainingInterrupted, match="hang"):
        _run(spec, freeze)
    assert stopped
    assert not launch.living(spec.paths)
    assert "Current thread" in (spec.paths.logs / "attempt-01" / "trainer.log").read_text()


@pytest.mark.faults
def test_a_signal_saves_and_the_run_goes_on_to_the_same_weights(inputs: Path) -> None:
    whole, spec = (_alone(inputs, name, steps=60) for name in ("alone", "signalled"))
    _run(whole)
    sent: list[int] = []

    def terminate(progress: Progress) -> None:
        if not sent and progress.step >= 5:
            sent.append(progress.step)
            _ranks(spec)[0].send_signal(signal.SIGTERM)

    outcome = _run(spec, terminate)
    assert sent
    assert (outcome.step, outcome.attempts) == (60, 2)
    log = (spec.paths.logs / "attempt-01" / "trainer.log").read_text()
    assert "got SIGTERM" in log
    assert (spec.paths.logs / "attempt-01" / "exit_code").read_text() == "1"  # torchrun's word for our 5
    tiny.same_weights(spec.paths.export, whole.paths.export)
