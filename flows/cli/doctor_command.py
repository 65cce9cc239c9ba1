"""``longvila doctor``: is everything here that a run needs?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from longvila.errors import ExitCode


def doctor(
    workspace: Annotated[Path, typer.Option(help="where you mean to work; its disk is looked at")] = Path(
        "workspace"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs")] = False,
) -> None:
    """Look at Python, torch, DeepSpeed, Prefect's pins, ffmpeg, disk, ports and devices."""
    from flows.cli.checks import all_checks

    checks = all_checks(workspace)
    if as_json:
        typer.echo(json.dumps([check._asdict() for check in checks]))
    else:
        for check in checks:
            typer.echo(f"{'ok' if check.ok else 'PROBLEM':<8} {check.name:<18} {check.found}")
            if not check.ok:
                typer.echo(f"{'':<8} {'':<18} → {check.mend}")
    if not all(check.ok for check in checks):
        raise typer.Exit(int(ExitCode.USAGE))
