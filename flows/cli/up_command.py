"""``longvila up``: Prefect's server and UI and one worker, on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def up(
    context: typer.Context,
    home: Annotated[
        Path, typer.Option(help="folder for Prefect's database and the logs of server and worker")
    ] = Path("workspace/prefect"),
    port: Annotated[int, typer.Option(help="of server and UI, on 127.0.0.1")] = 4200,
    deployments: Annotated[Path, typer.Option(help="the deployments to register")] = Path("prefect.yaml"),
) -> None:
    """Start Prefect's server, UI and a worker with the deployments of prefect.yaml; Ctrl-C ends them."""
    from flows.cli.stack import run_stack

    run_stack(home.absolute(), port=port, deployments=deployments, debug=context.obj["debug"])
