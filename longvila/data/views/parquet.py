"""Hugging Face's Parquet: frames as ``Image`` features, which ``datasets`` decodes when they are used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from longvila.data.views.building import Building
from longvila.data.views.source import Item, Source, frame_name
from longvila.data.views.turns import llava_turns

_ROW_GROUP_BYTES = 64 * 2**20
_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "kind": pa.string(),
        "video_id": pa.string(),
        "conversations": pa.list_(pa.struct({"from": pa.string(), "value": pa.string()})),
        "frames": pa.list_(_IMAGE),
        "times_s": pa.list_(pa.float64()),
        "provenance": pa.string(),
    }
)
_STRING = {"dtype": "string", "_type": "Value"}
FEATURES = {
    "key": _STRING,
    "kind": _STRING,
    "video_id": _STRING,
    "conversations": {"feature": {"from": _STRING, "value": _STRING}, "_type": "List"},
    "frames": {"feature": {"_type": "Image"}, "_type": "List"},
    "times_s": {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"},
    "provenance": _STRING,
}


def write_parquet(source: Source, building: Building, split: str) -> dict[str, int]:
    """Write ``data/{split}-00000.parquet``, one file for each of our tars, and the card that names them."""
    index = source.reader.index
    files: dict[str, int] = {}
    tars = groupby(source.items(), lambda item: index.row(item.number).shard)
    for number, (_, group) in enumerate(tars):
        items = list(group)
        name = f"data/{split}-{number:05d}.parquet"
        files[name] = building.put_file(
            name, lambda path, items=items: _write(path, source, items), source.scratch
        )
    card = _card(index.name, split).encode()
    files["README.md"] = building.put("README.md", lambda: card)
    return files


def _write(path: Path, source: Source, items: list[Item]) -> None:
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    schema = SCHEMA.with_metadata(metadata)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in _row_groups(source, items):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _row_groups(source: Source, items: list[Item]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    for item in items:
        row = _row(source, item)
        size += sum(len(frame["bytes"]) for frame in row["frames"])
        rows.append(row)
        if size >= _ROW_GROUP_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _row(source: Source, item: Item) -> dict[str, Any]:
    sample = item.sample
    frames = source.jpegs(item) if sample.num_frames else ()
    return {
        "key": sample.key,
        "kind": sample.kind,
        "video_id": sample.video_id or "",
        "conversations": llava_turns(item.shown.turns),
        "frames": [{"bytes": data, "path": name} for name, data in frames],
        "times_s": list(sample.frame_times_s),
        "provenance": json.dumps(sample.provenance, sort_keys=True),
    }


def _card(name: str, split: str) -> str:
    hub_split = "train" if split == "train" else "validation"
    return (
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        f"  - split: {hub_split}\n    path: data/{split}-*.parquet\n---\n\n"
        f"# {name}\n\nThe {split} split, with frames at the training rate as `Image` features. "
        f"In `conversations`, `<video>` stands for all `frames` ({frame_name(0)} first), each `<image>` for "
        "one; `times_s` are their seconds in the source video.\n"
    )
