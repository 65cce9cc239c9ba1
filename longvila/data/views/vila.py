"""VILA's WebDataset: tars of ``KEY.json`` (conversations) and ``KEY.mp4``, and its ``wids-meta.json``.

One tar for each of ours. Its reader takes a video with each sample, puts it before the first turn, and finds
the number of samples of a tar by its names, so there is nothing else in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from longvila.data.parts import TarWriter
from longvila.data.views.building import Building
from longvila.data.views.source import Item, Source
from longvila.data.views.turns import llava_turns
from longvila.errors import ItemError


def write_vila(source: Source, building: Building) -> dict[str, int]:
    """Write the tars, then ``wids-meta.json``."""
    index = source.reader.index
    shards = []
    files: dict[str, int] = {}
    for shard, group in groupby(
        source.items(accepts=_refuse_without_video), lambda item: index.row(item.number).shard
    ):
        items = list(group)  # records only; frames are read when they are written
        size = building.put_file(shard, _tar_of(source, items), source.scratch)
        shards.append({"url": shard, "nsamples": len(items), "filesize": size})
        files[shard] = size
    meta = {"name": index.name, "__kind__": "VILA-WebDataset", "wids_version": 1, "shardlist": shards}
    files["wids-meta.json"] = building.put("wids-meta.json", lambda: json.dumps(meta, indent=2).encode())
    return files


def _refuse_without_video(item: Item) -> None:
    if item.shown.media != "video":
        raise ItemError(
            "no-video", f"Sample {item.sample.key!r} has no video, which VILA's reader wants of every sample."
        )


def _tar_of(source: Source, items: list[Item]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            writer = TarWriter(file)
            for item in items:
                key = item.sample.key
                record = {
                    "id": key, "video": f"{key}.mp4", "conversations": llava_turns(item.shown.turns),
                }  # fmt: skip
                writer.add(f"{key}.json", json.dumps(record, ensure_ascii=False).encode())
                writer.add(f"{key}.mp4", source.video(item))
            writer.close()

    return write
