"""Where a build left its results: the manifests of every step, batch by batch.

Nothing is held whole: a build of thousands of videos is read one manifest at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TypeVar

from pydantic import Field, ValidationError

from longvila.errors import InputError
from longvila.records import Record, Rejection
from longvila.storage import Storage, read_manifest

RecordT = TypeVar("RecordT", bound=Record)


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
        found = (_read_stats(storage, batch.key) for batch in self.batches)
        return [stats for stats in found if stats is not None]


class BuildOutputs(Record):
    """All steps of a build in their order, and the data sets that it wrote."""

    steps: tuple[StepOutput, ...]
    datasets: dict[str, str] = Field(description="data set name → address of its shards")

    def step(self, name: str) -> StepOutput:
        """Return one step; a step that did not run has no batches."""
        return next((step for step in self.steps if step.step == name), StepOutput(step=name, batches=()))


class StepStats(Record):
    """What one batch of one step cost, as the step wrote it beside its manifest."""

    model_config = Record.model_config | {"extra": "ignore"}

    num_items: int = 0
    num_processed: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


def _read_stats(storage: Storage, manifest_key: str) -> StepStats | None:
    """Return a batch's figures; none when it left none, or when they cannot be read: they are no result."""
    key = manifest_key.removesuffix(".parquet") + ".stats.json"
    if not storage.exists(key):
        return None
    try:
        return StepStats.model_validate(json.loads(storage.get_bytes(key)))
    except (ValueError, ValidationError, InputError):
        return None
