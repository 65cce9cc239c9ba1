"""LLaVA's JSON (LLaVA-Video, VILA's ``LLaVADataset``, Qwen-VL fine-tuning) and ms-swift's JSONL.

Media are files below ``media/``: an MP4 per video (its frames are the sample's, one for one), or a folder of
JPEGs, which VILA and ms-swift read as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from longvila.data.views.building import Building
from longvila.data.views.source import Item, Source, write_media
from longvila.data.views.turns import chat_messages, llava_turns

Row = dict[str, Any]


def write_llava(source: Source, building: Building) -> dict[str, int]:
    """Write ``llava.json`` (a list) and ``llava.jsonl`` (a line each), with paths relative to the folder."""

    def rows() -> Iterator[Row]:
        for item in source.items():
            yield _llava_row(source, item, write_media(source, building, item))

    return _write_rows(source, building, rows, "llava")


def write_swift(source: Source, building: Building) -> dict[str, int]:
    """Write ``swift.jsonl``: messages, and the places that media have in the finished view."""

    def rows() -> Iterator[Row]:
        for item in source.items():
            names = [building.place(name) for name in write_media(source, building, item)]
            row: Row = {"messages": chat_messages(item.shown.turns)}
            if item.shown.media == "images":
                row["images"] = names
            elif item.shown.media == "video":
                row["videos"] = names if source.media == "mp4" else [names]
            yield row

    return _write_rows(source, building, rows, "swift", as_list=False)


def _llava_row(source: Source, item: Item, names: list[str]) -> Row:
    row: Row = {"id": item.sample.key}
    if item.shown.media == "images":
        row["image"] = names[0] if len(names) == 1 else names
    elif item.shown.media == "video":
        row["video"] = names[0] if source.media == "mp4" else names[0].rpartition("/")[0]
    row["conversations"] = llava_turns(item.shown.turns)
    return row


def _write_rows(
    source: Source,
    building: Building,
    rows: Callable[[], Iterator[Row]],
    name: str,
    *,
    as_list: bool = True,
) -> dict[str, int]:
    """Write the rows to local files as they come, and hand these over when all media are there."""
    lines, listed = source.scratch / f"{name}.jsonl", source.scratch / f"{name}.json"
    with lines.open("w", encoding="utf-8") as line_file, listed.open("w", encoding="utf-8") as list_file:
        list_file.write("[")
        for number, row in enumerate(rows()):
            text = json.dumps(row, ensure_ascii=False)
            line_file.write(text + "\n")
            list_file.write((",\n" if number else "\n") + text)
        list_file.write("\n]\n")
    wanted = [lines, listed] if as_list else [lines]
    return {path.name: building.put_file(path.name, _moved(path), source.scratch) for path in wanted}


def _moved(path: Path) -> Callable[[Path], None]:
    def move(target: Path) -> None:
        path.replace(target)

    return move
