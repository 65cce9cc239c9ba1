from __future__ import annotations

from pathlib import Path

import pytest

from longvila.config.sourcing import FetchConfig
from longvila.curation.fetching.fetch_many import fetch_batch
from longvila.records import Source
from longvila.storage import Workspace
from tests.curation.faulty import FaultyServer, answer, slowly
from tests.curation.fetching.test_fetch import CONFIG

SIZES = (100, 200, 300, 50, 50)


def bodies() -> dict[str, bytes]:
    return {f"/{number}.mp4": bytes([65 + number]) * size for number, size in enumerate(SIZES)}


def limited(limit: int, **changes: object) -> FetchConfig:
    return CONFIG.model_copy(update={"max_total_bytes": limit, **changes})


def sources_at(url: str) -> list[Source]:
    return [Source(source_id=f"s{number}", url=f"{url}/{number}.mp4") for number in range(len(SIZES))]


@pytest.mark.parametrize(
    ("limit", "kept"), [(10_000, 5), (700, 5), (699, 4), (600, 3), (599, 2), (300, 2), (99, 0)]
)
def test_the_first_that_does_not_fit_ends_the_set(tmp_path: Path, limit: int, kept: int) -> None:
    workspace = Workspace.open(tmp_path)
    with FaultyServer({path: [answer(200, body)] for path, body in bodies().items()}) as server:
        result = fetch_batch(workspace, sources_at(server.url), limited(limit))
        again = fetch_batch(workspace, sources_at(server.url), limited(limit))
    assert [found.source_id for found in result.results] == [f"s{i}" for i in range(kept)]
    assert [item.item_id for item in result.rejections] == [f"s{i}" for i in range(kept, 5)]
    assert {item.reason for item in result.rejections} <= {"set-full"}
    assert again.results == result.results
    assert sum(workspace.storage.size(key) for key in workspace.storage.list("videos/")) <= limit


def test_what_comes_first_in_the_list_goes_first_however_slow_it_is(tmp_path: Path) -> None:
    scripts = {path: [answer(200, body)] for path, body in bodies().items()}
    scripts["/0.mp4"] = [slowly(bodies()["/0.mp4"], piece=10, pause_s=0.03)]
    workspace = Workspace.open(tmp_path)
    with FaultyServer(scripts) as server:
        result = fetch_batch(workspace, sources_at(server.url), limited(310))
    assert [found.source_id for found in result.results] == ["s0", "s1"]
    assert sum(workspace.storage.size(key) for key in workspace.storage.list("videos/")) <= 310


def test_a_raised_limit_fetches_only_the_rest(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    with FaultyServer({path: [answer(200, body)] for path, body in bodies().items()}) as server:
        fetch_batch(workspace, sources_at(server.url), limited(300, connections=1))
        before = [path for path, _ in server.requests]
        result = fetch_batch(workspace, sources_at(server.url), limited(700))
    assert before == ["/0.mp4", "/1.mp4"]
    assert sorted(path for path, _ in server.requests[2:]) == ["/2.mp4", "/3.mp4", "/4.mp4"]
    assert len(result.results) == 5


def test_batches_share_the_limit(tmp_path: Path) -> None:
    from tasks.fetch import fetch_in_order
    from tasks.refs import WorkspaceRef, read_records, write_batches

    reference = WorkspaceRef(root=str(tmp_path))
    opened = reference.open()
    with FaultyServer({path: [answer(200, body)] for path, body in bodies().items()}) as server:
        batches = write_batches(opened, "sources", sources_at(server.url), Source, size=2)
        done = fetch_in_order(reference, batches, limited(350))
    from longvila.curation.fetching.fetch import FetchedVideo

    assert [found.source_id for found in read_records(opened, done, FetchedVideo)] == ["s0", "s1"]
    assert [ref.num_rejections for ref in done] == [0, 2, 1]
    assert all(ref.num_items == ref.num_results + ref.num_rejections for ref in done)
    assert "/4.mp4" not in [path for path, _ in server.requests]


def test_a_list_that_says_the_sizes_needs_no_request_to_know_what_does_not_fit(tmp_path: Path) -> None:
    with FaultyServer({path: [answer(200, body)] for path, body in bodies().items()}) as server:
        sources = [
            source.model_copy(update={"size_bytes": size})
            for source, size in zip(sources_at(server.url), SIZES, strict=True)
        ]
        fetch_batch(Workspace.open(tmp_path), sources, limited(300, connections=1))
    assert [path for path, _ in server.requests] == ["/0.mp4", "/1.mp4"]
