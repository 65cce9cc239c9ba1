"""Prefect artifacts: tables, notes, links and pictures, made only where a run exists to hang them on."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.context import FlowRunContext, TaskRunContext

MAX_ROWS = 100
MAX_IMAGE_BYTES = 256 * 1024


def add_table(name: str, rows: Sequence[Mapping[str, Any]], *, description: str = "") -> None:
    """Show rows as a table; at most ``MAX_ROWS`` of them."""
    if _in_run() and rows:
        table = [dict(row) for row in rows[:MAX_ROWS]]
        create_table_artifact(table=table, key=artifact_key(name), description=description or None)


def add_note(name: str, markdown: str) -> None:
    """Show a text."""
    if _in_run():
        create_markdown_artifact(markdown=markdown, key=artifact_key(name))


def add_link(name: str, target: str | Path, *, text: str = "") -> None:
    """Link a file or an address."""
    if _in_run():
        link = target.resolve().as_uri() if isinstance(target, Path) else target
        create_link_artifact(link=link, link_text=text or None, key=artifact_key(name))


def add_picture(name: str, image: bytes, *, media_type: str = "image/png", description: str = "") -> None:
    """Show a picture, carried in the artifact itself for any browser. Large ones are left out."""
    if _in_run() and len(image) <= MAX_IMAGE_BYTES:
        url = f"data:{media_type};base64,{base64.b64encode(image).decode()}"
        create_image_artifact(image_url=url, key=artifact_key(name), description=description or None)


def artifact_key(name: str) -> str:
    """A key that Prefect takes: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "artifact"


def _in_run() -> bool:
    return TaskRunContext.get() is not None or FlowRunContext.get() is not None
