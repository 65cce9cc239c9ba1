"""What the ``longvila train`` commands do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.cli.display import progress_display
from flows.cli.running import print_result, stop_on_interrupt
from flows.cli.runtime import prepare_environment, set_up_logging
from flows.params import TrainStageParams
from longvila.errors import InputError
from longvila.training import Outcome, Progress, RunPaths, RunSpec
from longvila.training.launch import LaunchRecord, poll, submit
from longvila.training.runfiles import read_model, write_model
from longvila.training.spec import fingerprint, read_spec


def launch(params: TrainStageParams, *, detach: bool, debug: bool, json_lines: bool) -> None:
    """Train one stage in the foreground, or start its trainer only."""
    from flows.preflight import check_before_start

    set_up_logging(debug=debug, json_lines=json_lines)
    recipe = check_before_start(params)
    prepare_environment()
    from tasks.model import start_checkpoint
    from tasks.servers import open_workspace
    from tasks.specs import spec_for

    with open_workspace(params.workspace, params.storage) as reference:
        if not params.init_from and params.stage == recipe.stages[0].name:
            start_checkpoint(recipe, reference)
        spec = spec_for(recipe, params.stage, reference, init_from=params.init_from, engine=params.engine)
        if detach:
            _submit(spec)
        else:
            _supervise(spec, json_lines=json_lines)


def attach(run_dir: Path, *, debug: bool, json_lines: bool) -> None:
    """Watch a run to its end."""
    set_up_logging(debug=debug, json_lines=json_lines)
    prepare_environment()
    _supervise(read_spec(run_paths(run_dir).spec), json_lines=json_lines)


def _supervise(spec: RunSpec, *, json_lines: bool) -> None:
    from tasks.training import supervise

    with stop_on_interrupt(), progress_display(json_lines=json_lines):
        outcome = supervise(spec)
    print_result(outcome if json_lines else outcome.export_dir, json_lines=json_lines)


def _submit(spec: RunSpec) -> None:
    from longvila.training.launch import attach as find_living

    if find_living(spec.paths) is None:
        write_model(spec.paths.spec, spec)
        submit(spec, fingerprint=fingerprint(spec), attempt=_next_attempt(spec.paths))
    print_result(spec.run_dir, json_lines=False)


def _next_attempt(paths: RunPaths) -> int:
    before = read_model(paths.launch, LaunchRecord)
    return before.attempt + 1 if before else 1


def run_paths(run_dir: Path) -> RunPaths:
    """The paths of a run folder that exists."""
    paths = RunPaths(run_dir.absolute())
    if not paths.spec.is_file():
        raise InputError(
            f"{run_dir} is not the folder of a training run (no spec.json in it). See: longvila train status"
        )
    return paths


def launch_record(run_dir: Path) -> LaunchRecord:
    """What is known of the run's trainer."""
    record = read_model(run_paths(run_dir).launch, LaunchRecord)
    if record is None:
        raise InputError(
            f"No trainer was started for {run_dir} yet. Start it: longvila train attach {run_dir}"
        )
    return record


def find_runs(folder: Path) -> list[Path]:
    """The run folders in a workspace, or the one that is given, oldest first."""
    if (folder / "spec.json").is_file():
        return [folder]
    found = sorted((folder / "runs").glob("*/spec.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(f"{folder} holds no training runs. Give a workspace in which a stage was started.")
    return [path.parent for path in found]


def describe_run(run_dir: Path) -> dict[str, Any]:
    """Where one run stands, as plain data."""
    paths = RunPaths(run_dir.absolute())
    record = read_model(paths.launch, LaunchRecord)
    progress = read_model(paths.progress, Progress)
    outcome = read_model(paths.outcome, Outcome)
    alive = record is not None and poll(record).alive
    latest = outcome if outcome and not alive else progress
    return {
        "run_dir": str(run_dir),
        "state": "running" if alive else (outcome.status if outcome else "ended"),
        "step": latest.step if latest else 0,
        "total_steps": latest.total_steps if latest else 0,
        "loss": latest.loss if latest else None,
        "message": outcome.message if outcome else "",
    }
