"""Where a build left its results: the manifests of every step, batch by batch.

Nothing is held whole: a build of thousands of videos is read one manifest at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from pydantic import Field, ValidationError

from longvila.curation.duplicates.pairs import DuplicatePair
from longvila.errors import InputError
from longvila.records import Record, Rejection
from longvila.storage import StepStats, Storage, read_manifest, read_stats

RecordT = TypeVar("RecordT", bound=Record)
_STATS = ".stats.json"


class Batch(Record):
    """The output of one step for one batch of items."""

    key: str = Field(description="of the manifest in the workspace's storage")
    num_items: int
    num_results: int
    num_rejections: int


class StepOutput(Record):
    """One step with all its batches."""

    step: str
    batches: tuple[Batch, ...]

    @property
    def num_items(self) -> int:
        """Items that entered."""
        return sum(batch.num_items for batch in self.batches)

    @property
    def num_results(self) -> int:
        """Results of all items."""
        return sum(batch.num_results for batch in self.batches)

    def records(self, storage: Storage, cls: type[RecordT]) -> Iterator[list[RecordT]]:
        """Yield the results of one batch after another; ``InputError`` for a missing or damaged manifest."""
        for batch in self.batches:
            yield read_manifest(storage, batch.key, cls)

    def rejections(self, storage: Storage) -> Iterator[Rejection]:
        """Yield what the step rejected."""
        for batch in self.batches:
            if batch.num_rejections:
                key = batch.key.removesuffix(".parquet") + ".rejections.parquet"
                yield from read_manifest(storage, key, Rejection)

    def stats(self, storage: Storage) -> list[StepStats]:
        """Return what the batches cost, as far as they say."""
        found = (_stats_of(storage, batch.key) for batch in self.batches)
        return [stats for stats in found if stats is not None]


class BuildOutputs(Record):
    """All steps of a build in their order, and the data sets that it wrote."""

    steps: tuple[StepOutput, ...]
    datasets: dict[str, str] = Field(description="data set name → address of its shards")
    duplicates: str = Field(default="", description="key of the manifest of pairs; empty: none was written")

    def pairs(self, storage: Storage) -> dict[str, DuplicatePair]:
        """Return what each rejected video has most of in common with another, by its video_id."""
        if not self.duplicates:
            return {}
        found: dict[str, DuplicatePair] = {}
        for pair in read_manifest(storage, self.duplicates, DuplicatePair):
            best = found.get(pair.video_id)
            if pair.rejects and (best is None or pair.shared_s > best.shared_s):
                found[pair.video_id] = pair
        return found

    def step(self, name: str) -> StepOutput:
        """Return one step; a step that did not run has no batches."""
        return next((step for step in self.steps if step.step == name), StepOutput(step=name, batches=()))


def dataset_stats(storage: Storage, name: str, step: str) -> StepStats | None:
    """Return what the latest writing (``shards``) or ``verify`` of a data set cost; none if not known."""
    keys = [key for key in storage.list(f"manifests/{step}/{name}/") if key.endswith(_STATS)]
    found = (_stats_of(storage, key.removesuffix(_STATS) + ".json") for key in keys)
    return max((one for one in found if one is not None), key=lambda one: one.finished_at, default=None)


def _stats_of(storage: Storage, key: str) -> StepStats | None:
    """Return the figures beside a manifest; none when they are missing or damaged: they are no result."""
    try:
        return read_stats(storage, key)
    except (ValidationError, InputError):
        return None
