"""Puts the commands together. Each group lives in its own module and imports what it needs when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from flows.cli import (
    ask_command,
    config_commands,
    data_commands,
    doctor_command,
    eval_commands,
    flow_commands,
    task_commands,
    train_commands,
    up_command,
)
from flows.cli.errors import run_guarded

app = typer.Typer(
    name="longvila",
    help="The life of a long-context video-language model: data, five training stages, evaluation, serving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("doctor")(doctor_command.doctor)
app.add_typer(task_commands.app, name="task")
app.add_typer(flow_commands.app, name="flow")
app.add_typer(data_commands.app, name="data")
app.add_typer(train_commands.app, name="train")
app.add_typer(eval_commands.app, name="eval")
app.add_typer(config_commands.app, name="config")
app.command("ask")(ask_command.ask)
app.command("up")(up_command.up)


def _version(wanted: bool) -> None:
    if wanted:
        from longvila import __version__

        typer.echo(f"longvila {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and everything that is logged.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version
    context.obj = {"debug": debug}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with a code of ``longvila.errors.ExitCode``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run_guarded(app, given, debug="--debug" in given))
