"""What tasks hand to one another: names of things in a workspace, never the things themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from pydantic import Field

from longvila.config.model import Settings
from longvila.records import Record, Rejection, content_id

if TYPE_CHECKING:
    from longvila.storage import StepResult, Workspace

RecordT = TypeVar("RecordT", bound=Record)


class WorkspaceRef(Settings):
    """A workspace by its place; ``open`` checks it."""

    root: str = Field(description="a local folder; made when missing")
    storage: str = Field(default="local", description="local, or s3://bucket/prefix")

    def open(self) -> Workspace:
        """Open the workspace. Errors as ``longvila.storage.Workspace.open``."""
        from longvila.storage import Workspace

        return Workspace.open(self.root, self.storage)


class ManifestRef(Settings):
    """The output of one step: a manifest in the workspace and how much is in it."""

    step: str
    key: str = Field(description="of the manifest in the workspace's storage")
    num_items: int = Field(default=0, description="items that entered")
    num_results: int = 0
    num_rejections: int = 0
    reused: bool = Field(default=False, description="the output was there before; nothing ran")

    @property
    def rejections_key(self) -> str:
        """Where the step's rejections lie."""
        return self.key.removesuffix(".parquet") + ".rejections.parquet"


def step_ref(step: str, result: StepResult, *, num_items: int) -> ManifestRef:
    """Name what a step gave."""
    return ManifestRef(
        step=step,
        key=result.manifest_key,
        num_items=num_items,
        num_results=len(result.results),
        num_rejections=len(result.rejections),
        reused=result.reused,
    )


def read_records(
    workspace: Workspace, refs: ManifestRef | Sequence[ManifestRef], cls: type[RecordT]
) -> list[RecordT]:
    """Read the records of one manifest, or of several one after another."""
    from longvila.storage import read_manifest

    listed = [refs] if isinstance(refs, ManifestRef) else refs
    return [record for ref in listed for record in read_manifest(workspace.storage, ref.key, cls)]


def read_rejections(workspace: Workspace, refs: Sequence[ManifestRef]) -> list[Rejection]:
    """Read what steps rejected."""
    from longvila.storage import read_manifest

    return [item for ref in refs for item in read_manifest(workspace.storage, ref.rejections_key, Rejection)]


def write_batches(
    workspace: Workspace, name: str, records: Sequence[RecordT], cls: type[RecordT], *, size: int
) -> list[ManifestRef]:
    """Write records as manifests of at most ``size`` rows, the unit that a task works on."""
    return [
        write_batch(workspace, name, records[start : start + size], cls)
        for start in range(0, len(records), size)
    ]


def write_batch(
    workspace: Workspace, name: str, records: Sequence[RecordT], cls: type[RecordT]
) -> ManifestRef:
    """Write records as one manifest that is named by their content."""
    from longvila.storage import write_manifest

    key = f"manifests/{name}/{content_id([row.model_dump(mode='json') for row in records])}.parquet"
    if not workspace.storage.exists(key):
        write_manifest(workspace.storage, key, records, cls=cls)
    return ManifestRef(step=name, key=key, num_items=len(records), num_results=len(records))


def join_refs(refs: Sequence[ManifestRef]) -> ManifestRef:
    """The batches of one step as one row of counts; its key is that of the first batch."""
    first = refs[0]
    return first.model_copy(
        update={
            "num_items": sum(ref.num_items for ref in refs),
            "num_results": sum(ref.num_results for ref in refs),
            "num_rejections": sum(ref.num_rejections for ref in refs),
            "reused": all(ref.reused for ref in refs),
        }
    )
