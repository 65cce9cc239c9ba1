"""``longvila train``: start a stage, look at it, stop it, join it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Training runs: launch, status, logs, stop, attach.")
RunArgument = Annotated[Path, typer.Argument(help="the run's folder, as train status shows it")]


@app.command()
def launch(
    context: typer.Context,
    stage: Annotated[str, typer.Argument(help="align, pretrain, short_sft, extend_context or long_sft")],
    recipe: Annotated[str, typer.Option(help="recipe name or YAML path")] = "demo",
    workspace: Annotated[str, typer.Option(help="folder with the data sets")] = "workspace/demo",
    storage: Annotated[str, typer.Option(help="local, s3, or s3://bucket/prefix")] = "local",
    init_from: Annotated[
        str, typer.Option(help="exported checkpoint to start from; none: the stage before")
    ] = "",
    engine: Annotated[str, typer.Option(help="deepspeed, or torch for one process")] = "deepspeed",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="change a field of the recipe")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="start the trainer and come back at once")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="progress and result as JSON lines")] = False,
) -> None:
    """Train one stage without a server. Ctrl-C asks for a checkpoint; starting again goes on from there."""
    from flows.cli import training
    from flows.params import TrainStageParams
    from longvila.config.load import validate

    given = {
        "stage": stage,
        "recipe": recipe,
        "workspace": workspace,
        "storage": storage,
        "init_from": init_from,
        "engine": engine,
        "overrides": changes or [],
    }
    params = validate(TrainStageParams, given, origin="train launch")
    training.launch(params, detach=detach, debug=context.obj["debug"], json_lines=as_json)


@app.command()
def status(
    workspace: Annotated[Path, typer.Argument(help="a workspace, or one run's folder")] = Path(
        "workspace/demo"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs")] = False,
) -> None:
    """Show the training runs of a workspace: step, loss, and whether their trainer lives."""
    from flows.cli.training import describe_run, find_runs

    rows = [describe_run(run_dir) for run_dir in find_runs(workspace)]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        step = f"{row['step']}/{row['total_steps']}" if row["total_steps"] else "-"
        loss = f"{row['loss']:.4f}" if row["loss"] is not None else "-"
        typer.echo(f"{row['state']:<10} {step:>9}  loss {loss:<9} {row['run_dir']}")


@app.command()
def logs(
    run_dir: RunArgument,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on until the trainer ends")] = False,
    max_bytes: Annotated[int, typer.Option("--bytes", help="how much of the end to show", min=1)] = 16_384,
) -> None:
    """Print the end of the trainer's log."""
    from flows.cli.training import launch_record
    from longvila.training.launch import poll, tail

    record = launch_record(run_dir)
    text, position = tail(record, max_bytes=max_bytes)
    typer.echo(text, nl=False)
    while follow and poll(record).alive:
        time.sleep(1.0)
        text, position = tail(record, start_bytes=position)
        typer.echo(text, nl=False)


@app.command()
def stop(
    run_dir: RunArgument,
    now: Annotated[bool, typer.Option("--now", help="end it at once, without a checkpoint")] = False,
    grace_s: Annotated[float, typer.Option(help="seconds to wait for the checkpoint", min=0)] = 600.0,
) -> None:
    """Ask a trainer for a checkpoint and an end."""
    from flows.cli.training import run_paths
    from longvila.training.launch import stop as stop_run
    from longvila.training.launch.local import kill

    paths = run_paths(run_dir)
    if now:
        kill(paths)
        typer.echo("ended; the last checkpoint is kept")
        return
    saved = stop_run(paths, grace_s=grace_s)
    typer.echo(
        "stopped with a checkpoint" if saved else "ended by force; the last checkpoint before that is kept"
    )


@app.command()
def attach(
    context: typer.Context,
    run_dir: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="progress and result as JSON lines")] = False,
) -> None:
    """Join a run: watch its trainer, or start it again where it ended before the end."""
    from flows.cli import training

    training.attach(run_dir, debug=context.obj["debug"], json_lines=as_json)
