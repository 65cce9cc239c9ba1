"""Other trainers' layouts of a data set, made on demand from its shards."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from longvila.data.index import Index, open_index
from longvila.data.reader import ShardReader
from longvila.data.views import video
from longvila.data.views.building import Building, ViewReport
from longvila.data.views.source import MediaForm, Source
from longvila.errors import ConfigError, InputError
from longvila.records import Split, content_id
from longvila.storage import Storage

ViewName = Literal["llava", "swift", "vila", "energon", "parquet"]
VIEWS: tuple[ViewName, ...] = get_args(ViewName)
VERSION = 1
_MEDIA_OF: dict[str, tuple[MediaForm, ...]] = {  # the first is taken when none is asked for
    "llava": ("mp4", "frames"),
    "swift": ("frames", "mp4"),
    "vila": ("mp4",),
    "energon": (),
    "parquet": (),
}


def export_view(
    storage: Storage,
    name: str,
    view: ViewName,
    *,
    split: Split = "train",
    media: MediaForm | Literal["auto"] = "auto",
    crf: int = 16,
    out: Storage | None = None,
    folder: str | None = None,
    dataset_folder: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ViewReport:
    """Write a view of a split of the data set ``name``, into ``views/{name}/{view}-{split}`` of ``out``.

    ``out`` is the data set's own storage unless given; Energon's view always lies beside the tars. The view
    is whole or absent; one that a killed process began is gone on with, and one that is there is left as it
    is. ``dataset_folder`` names another place of the data set than ``shards/{name}``. ``on_progress`` is
    called with (samples done, all).

    Raises ``ConfigError`` for media that the view does not have, ``InputError`` when the data set is missing,
    the split is empty, none of its samples fits the view, or the folder holds something else.
    """
    form = _media_form(view, media)
    index = open_index(storage, name, folder=dataset_folder)
    chosen = index.select(split)
    if not len(chosen):
        raise InputError(f"Data set {name!r} has no sample in split {split!r}. Choose the other split.")
    made_of = ("view", view, split, form, crf if form == "mp4" else None, chosen.hash, VERSION, video.VERSION)
    if view == "energon":
        return _export_energon(storage, index, split, content_id(*made_of))
    target = out or storage
    folder = folder or f"views/{name}/{view}-{split}"
    building = Building(target, folder, content_id(*made_of, target.url, folder))
    done = building.finished()
    if done is not None:
        return done
    building.begin()
    with tempfile.TemporaryDirectory() as scratch:
        source = Source(ShardReader(storage, chosen), form or "frames", crf, Path(scratch), on_progress)
        files = _write(view, source, building, split)
        if not source.num_samples:
            raise InputError(
                f"None of the {len(chosen)} samples of data set {name!r} ({split}) fits the view {view!r}: "
                f"{dict(source.left_out)}. The first: {source.examples[0]} Choose another view."
            )
        return building.finish(_report(source, building, view, split, files, f"{target.url}/{folder}"))


def _media_form(view: ViewName, media: str) -> MediaForm | None:
    if view not in VIEWS:
        raise ConfigError(f"view={view!r} is not known. Use one of {', '.join(VIEWS)}.")
    known = _MEDIA_OF[view]
    if media == "auto":
        return known[0] if known else None
    for form in known:
        if form == media:
            return form
    has = " or ".join(known) if known else "only the frames as they lie in the shards"
    raise ConfigError(f"media={media!r} is not for view={view!r}, which has {has}. Leave media at auto.")


def _write(view: ViewName, source: Source, building: Building, split: Split) -> dict[str, int]:
    # Each is imported when it is wanted: pyarrow and av are not small.
    if view == "parquet":
        from longvila.data.views.parquet import write_parquet

        return write_parquet(source, building, split)
    if view == "vila":
        from longvila.data.views.vila import write_vila

        return write_vila(source, building)
    from longvila.data.views.llava import write_llava, write_swift

    return (write_llava if view == "llava" else write_swift)(source, building)


def _report(
    source: Source, building: Building, view: ViewName, split: Split, files: dict[str, int], url: str
) -> ViewReport:
    index = source.reader.index
    return ViewReport(
        view_id=building.view_id,
        view=view,
        dataset=index.name,
        index_hash=index.hash,
        split=split,
        url=url,
        num_samples=source.num_samples,
        num_frames=source.num_frames,
        files=files,
        num_files=building.num_files,
        left_out=dict(sorted(source.left_out.items())),
        examples=tuple(source.examples),
    )


def _export_energon(storage: Storage, index: Index, split: Split, view_id: str) -> ViewReport:
    """The held-out split comes as ``val`` beside ``train`` when it is asked for, never as ``train``."""
    from longvila.data.views.energon import write_energon

    splits: tuple[Split, ...] = ("train", "heldout") if split == "heldout" else ("train",)
    with tempfile.TemporaryDirectory() as scratch:
        files = write_energon(storage, index, splits, Path(scratch))
    chosen = [index.select(one) for one in splits]
    return ViewReport(
        view_id=view_id,
        view="energon",
        dataset=index.name,
        index_hash=index.hash,
        split=split,
        url=f"{storage.url}/{index.folder}",
        num_samples=sum(map(len, chosen)),
        num_frames=int(sum(one.num_frames.sum() for one in chosen)),
        files=files,
        num_files=len(files),
    )
