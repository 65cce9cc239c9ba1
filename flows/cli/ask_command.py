"""``longvila ask``: one question about one video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ask(
    checkpoint: Annotated[Path, typer.Argument(help="folder of an exported checkpoint")],
    video: Annotated[Path, typer.Argument(help="video file")],
    question: Annotated[str, typer.Argument(help="what to ask")],
    max_frames: Annotated[int | None, typer.Option(help="frames to look at, at most", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the answer as JSON")] = False,
) -> None:
    """Ask a checkpoint about a video."""
    from flows.cli.asking import answer

    typer.echo(answer(checkpoint, video, question, max_frames=max_frames, as_json=as_json))
