"""``longvila eval``: measure checkpoints, compare results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Evaluation: run, compare.")


@app.command()
def run(
    context: typer.Context,
    checkpoints: Annotated[
        list[str] | None, typer.Argument(help="folders or names in the workspace; none: the newest")
    ] = None,
    recipe: Annotated[str, typer.Option(help="recipe name or YAML path")] = "demo",
    workspace: Annotated[str, typer.Option(help="folder with checkpoints and data sets")] = "workspace/demo",
    storage: Annotated[str, typer.Option(help="local, s3, or s3://bucket/prefix")] = "local",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="change a field of the recipe")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="progress and result as JSON lines")] = False,
) -> None:
    """Measure checkpoints without a server; what was measured before is read back."""
    from flows.cli.evaluating import evaluate_here
    from flows.params import EvaluateParams

    params = EvaluateParams(
        recipe=recipe,
        workspace=workspace,
        storage=storage,
        overrides=tuple(changes or ()),
        checkpoints=tuple(checkpoints or ()),
    )
    evaluate_here(params, debug=context.obj["debug"], json_lines=as_json)


@app.command()
def compare(
    results: Annotated[
        list[Path], typer.Argument(help="result files, the first is what others are compared with")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs")] = False,
) -> None:
    """Put results side by side."""
    from flows.cli.evaluating import comparison

    typer.echo(comparison(results, as_json=as_json))
