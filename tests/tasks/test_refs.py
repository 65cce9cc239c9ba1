from __future__ import annotations

from pathlib import Path

from longvila.records import Rejection, Source
from longvila.storage import run_step
from tasks.refs import (
    WorkspaceRef,
    join_refs,
    read_records,
    read_rejections,
    step_ref,
    write_batches,
)

SOURCES = [Source(source_id=f"s{i}", url=f"v{i}.mp4") for i in range(5)]


def test_batches_hold_everything_once_and_in_order(tmp_path: Path) -> None:
    workspace = WorkspaceRef(root=str(tmp_path)).open()
    refs = write_batches(workspace, "sources", SOURCES, Source, size=2)
    assert [ref.num_items for ref in refs] == [2, 2, 1]
    assert read_records(workspace, refs, Source) == SOURCES
    assert write_batches(workspace, "sources", SOURCES, Source, size=2) == refs


def test_a_step_s_reference_leads_to_results_and_rejections(tmp_path: Path) -> None:
    workspace = WorkspaceRef(root=str(tmp_path)).open()

    def process(source: Source) -> Source | Rejection:
        if source.source_id == "s3":
            return Rejection(item_id="s3", step="try", reason="bad", detail="it is bad")
        return source

    result = run_step(
        workspace, name="try", version=1, settings=None, items=SOURCES, process=process, result_cls=Source
    )
    ref = step_ref("try", result, num_items=len(SOURCES))
    assert (ref.num_items, ref.num_results, ref.num_rejections) == (5, 4, 1)
    assert [item.reason for item in read_rejections(workspace, [ref])] == ["bad"]
    joined = join_refs([ref, ref.model_copy(update={"reused": True})])
    assert (joined.num_items, joined.num_results, joined.reused) == (10, 8, False)
