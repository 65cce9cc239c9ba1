"""``longvila flow``: run any flow from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Flows: list them, run one.")


@app.command("list")
def list_flows(as_json: Annotated[bool, typer.Option("--json", help="JSON for programs")] = False) -> None:
    """List the flows."""
    from flows.registry import FLOWS

    if as_json:
        rows = [
            {"name": flow.name, "deployment": flow.deployment, "summary": flow.summary}
            for flow in FLOWS.values()
        ]
        typer.echo(json.dumps(rows))
        return
    for entry in FLOWS.values():
        typer.echo(f"{entry.name:<16} {entry.summary}")


@app.command()
def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="one of longvila flow list")],
    recipe: Annotated[str | None, typer.Option(help="recipe name or YAML path")] = None,
    workspace: Annotated[str | None, typer.Option(help="folder to work in")] = None,
    storage: Annotated[
        str | None, typer.Option(help="local, s3 (started on loopback), or s3://bucket/prefix")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="YAML file with the flow's parameters")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="change a field of the recipe")
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="set a parameter of the flow")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="progress and result as JSON lines")] = False,
) -> None:
    """Run a flow here. Without a server (PREFECT_API_URL) one is started for the length of the run."""
    from flows.cli.running import run_flow
    from flows.registry import find_flow

    entry = find_flow(name)
    named = {"recipe": recipe, "workspace": workspace, "storage": storage}
    given = {key: value for key, value in named.items() if value is not None}
    params = _parameters(entry.params, config, given, changes or [], parameters or [])
    run_flow(entry, params, debug=context.obj["debug"], json_lines=as_json)


def _parameters(
    model: type[Any], config: Path | None, given: dict[str, Any], changes: list[str], parameters: list[str]
) -> Any:
    """One checked model from the file, the named options and ``--param``."""
    from longvila.config.load import load_settings, validate
    from longvila.config.overrides import parse_overrides

    overrides = {**given, **parse_overrides(parameters)}
    if changes:
        overrides["overrides"] = changes
    if config is not None:
        return load_settings(config, model, overrides=overrides, what="parameter file")
    return validate(model, {}, origin="the flow's parameters", overrides=overrides)
