"""``longvila task``: any single task, here, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Tasks: list, show, run one without a server.")
NameArgument = Annotated[str, typer.Argument(help="one of longvila task list")]


@app.command("list")
def list_tasks(as_json: Annotated[bool, typer.Option("--json", help="JSON for programs")] = False) -> None:
    """List the tasks."""
    from tasks.registry import TASKS

    if as_json:
        typer.echo(json.dumps([{"name": task.name, "summary": task.summary} for task in TASKS.values()]))
        return
    for task in TASKS.values():
        typer.echo(f"{task.name:<20} {task.summary}")


@app.command()
def show(name: NameArgument) -> None:
    """Print what a task takes (as JSON schema), how often it is tried again, and its time limit."""
    from flows.cli.runtime import prepare_environment
    from tasks.registry import find_task

    prepare_environment()
    entry = find_task(name)
    typer.echo(json.dumps(entry.describe(), indent=2))


@app.command()
def run(
    context: typer.Context,
    name: NameArgument,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="YAML file with the parameters")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="set or change one parameter")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check the parameters only")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="progress and result as JSON lines")] = False,
) -> None:
    """Run one task in this process, without any server. Its parameters come from a YAML file and --set."""
    from flows.cli.display import progress_display
    from flows.cli.running import print_result, stop_on_interrupt
    from flows.cli.runtime import prepare_environment, set_up_logging
    from longvila.config.load import load_settings, validate
    from longvila.config.overrides import parse_overrides
    from tasks.registry import find_task

    set_up_logging(debug=context.obj["debug"], json_lines=as_json)
    prepare_environment()
    entry = find_task(name)
    overrides, model = parse_overrides(changes or []), entry.parameters()
    if config is not None:
        given = load_settings(config, model, overrides=overrides, what="parameter file")
    else:
        given = validate(model, {}, origin=f"task {entry.name}", overrides=overrides)
    if dry_run:
        typer.echo(given.model_dump_json(indent=2))
        return
    with stop_on_interrupt(), progress_display(json_lines=as_json):
        result = entry.call(given)
    print_result(result, json_lines=as_json)
