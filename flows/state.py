"""What a workspace remembers of a recipe's data set: for the refresh flow and for the report."""

from __future__ import annotations

from collections.abc import Sequence

from longvila.config.data import DataConfig
from longvila.curation.fetching.fetch import PASSING_REASONS
from longvila.curation.listing.private import published
from longvila.curation.listing.sources import list_sources
from longvila.errors import InputError, TooManyRejections
from longvila.records import Source, content_id
from longvila.storage import Workspace
from tasks.contents import BuiltDataset
from tasks.marks import Mark
from tasks.refs import ManifestRef, WorkspaceRef, read_records, read_rejections


def remember_dataset(reference: WorkspaceRef, recipe: str, result: BuiltDataset) -> None:
    """Write down what the recipe's data set is now."""
    _mark(recipe).write(reference.open(), result)


def recall_dataset(reference: WorkspaceRef, recipe: str) -> BuiltDataset | None:
    """What the recipe's data set was when it was last built; none before the first time."""
    found = _mark(recipe).read(reference.open(), BuiltDataset)
    return found if isinstance(found, BuiltDataset) else None


def need_dataset(reference: WorkspaceRef, recipe: str) -> BuiltDataset:
    """As ``recall_dataset``; ``InputError`` when nothing was built yet."""
    found = recall_dataset(reference, recipe)
    if found is None:
        raise InputError(
            f"No data set of recipe {recipe!r} was built in {reference.root} yet. "
            f"Build it: longvila flow run build-dataset --recipe {recipe} --workspace {reference.root}"
        )
    return found


def source_marks(
    workspace: Workspace, sources: Sequence[ManifestRef], fetched: Sequence[ManifestRef]
) -> dict[str, str]:
    """What each source's entry says, as an id. Those that may be reachable later are left out: still new."""
    passing = {item.item_id for item in read_rejections(workspace, fetched) if item.reason in PASSING_REASONS}
    listed = read_records(workspace, sources, Source)
    return marks_of([source for source in listed if source.source_id not in passing])


def marks_of(sources: Sequence[Source]) -> dict[str, str]:
    """What each source's entry says, as an id; a changed entry counts as new."""
    return {source.source_id: content_id(source.model_dump(mode="json")) for source in sources}


def list_marks(reference: WorkspaceRef, data: DataConfig) -> dict[str, str]:
    """The marks of what the source list comes to now, its folders and tables looked into."""
    scratch = reference.open().scratch("tables")
    listing = list_sources(data.sources, scratch=scratch, config=data.fetch)
    return marks_of([published(source) for source in listing.sources])


def check_rejections(result: BuiltDataset, data: DataConfig) -> None:
    """Raise ``TooManyRejections`` when more sources were rejected than the recipe allows."""
    listed = result.steps[0].num_items if result.steps else len(result.sources)
    share = result.num_rejected_sources / max(listed, 1)
    if share > data.max_rejected_share:
        raise TooManyRejections(
            f"{result.num_rejected_sources} of {listed} sources were rejected, more than "
            f"data.max_rejected_share={data.max_rejected_share} allows. The others make the data set; "
            "mend the sources, or allow more."
        )


def _mark(recipe: str) -> Mark:
    return Mark(key=f"manifests/current/{recipe}.json")
