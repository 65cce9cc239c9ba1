from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from longvila.errors import InputError
from longvila.records import Source, VideoRecord
from tasks.fetch import fetch_batch, list_sources, validate_batch
from tasks.refs import WorkspaceRef, read_records, read_rejections
from tasks.servers import open_workspace, serve_sources

LIST = """\
sources:
  - {url: good.mp4}
  - {url: gone.mp4}
  - {url: cut.mp4}
"""


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A source list with a good video, one that is gone and one that is cut short."""
    from tests.flows.conftest import DEMO

    folder = tmp_path / "list"
    folder.mkdir()
    good = (DEMO / "videos" / "10-meadow-again.mp4").read_bytes()
    (folder / "good.mp4").write_bytes(good)
    (folder / "cut.mp4").write_bytes(good[: len(good) // 2])
    (folder / "sources.yaml").write_text(LIST)
    return folder / "sources.yaml"


def test_relative_sources_are_served_while_the_block_lasts(served: Path) -> None:
    with serve_sources(str(served)) as address:
        assert address is not None
        assert httpx.get(f"{address}/good.mp4").status_code == 200
        assert httpx.get(f"{address}/gone.mp4").status_code == 404
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/good.mp4")


def test_sources_with_addresses_of_their_own_are_not_served(tmp_path: Path) -> None:
    listed = tmp_path / "sources.yaml"
    listed.write_text("sources:\n  - {url: https://example.org/a.mp4}\n")
    with serve_sources(str(listed)) as address:
        assert address is None


def test_bad_sources_become_rejections_and_a_new_port_fetches_nothing_again(
    served: Path, tmp_path: Path
) -> None:
    from longvila.config.sourcing import FetchConfig, ValidateConfig

    reference = WorkspaceRef(root=str(tmp_path / "ws"))
    (batch,) = list_sources.fn(reference, str(served), 16)
    config = FetchConfig(allow_private_hosts=("127.0.0.1",), backoff_s=0.01)
    with serve_sources(str(served)) as address:
        fetched = fetch_batch.fn(reference, batch, config, address)
    with serve_sources(str(served)) as address:
        again = fetch_batch.fn(reference, batch, config, address)
    assert again == fetched.model_copy(update={"reused": True})
    checked = validate_batch.fn(reference, fetched, ValidateConfig())
    workspace = reference.open()
    assert [video.source_id for video in read_records(workspace, checked, VideoRecord)] == ["good"]
    reasons = {item.item_id: item.reason for item in read_rejections(workspace, [fetched, checked])}
    assert reasons == {"gone": "gone", "cut": "truncated"}
    (gone,) = read_rejections(workspace, [fetched])
    assert gone.detail == "gone.mp4: there is nothing at this address (404)"


def test_loopback_has_to_be_allowed_by_name(served: Path, tmp_path: Path) -> None:
    from longvila.config.sourcing import FetchConfig

    reference = WorkspaceRef(root=str(tmp_path / "ws"))
    (batch,) = list_sources.fn(reference, str(served), 16)
    with serve_sources(str(served)) as address:
        fetched = fetch_batch.fn(reference, batch, FetchConfig(backoff_s=0.01), address)
    reasons = {item.reason for item in read_rejections(reference.open(), [fetched])}
    assert reasons == {"private-address"}


def test_relative_sources_need_a_base(served: Path, tmp_path: Path) -> None:
    from longvila.config.sourcing import FetchConfig

    reference = WorkspaceRef(root=str(tmp_path / "ws"))
    (batch,) = list_sources.fn(reference, str(served), 16)
    with pytest.raises(InputError, match="Say with base="):
        fetch_batch.fn(reference, batch, FetchConfig())
    assert fetch_batch.fn(reference, batch, FetchConfig(), str(served.parent)).num_results == 2


def test_large_lists_are_cut_into_batches(tmp_path: Path) -> None:
    listed = tmp_path / "sources.yaml"
    listed.write_text("sources:\n" + "".join(f"  - {{url: /v/{i}.mp4}}\n" for i in range(40)))
    reference = WorkspaceRef(root=str(tmp_path / "ws"))
    batches = list_sources.fn(reference, str(listed), 16)
    assert [batch.num_items for batch in batches] == [16, 16, 8]
    assert len({item.source_id for item in read_records(reference.open(), batches, Source)}) == 40


def test_s3_is_a_real_server_that_keeps_what_was_written(tmp_path: Path) -> None:
    with open_workspace(str(tmp_path / "ws"), "s3") as reference:
        assert reference.storage.startswith("s3://")
        reference.open().storage.put_bytes("videos/a", b"kept")
    with open_workspace(str(tmp_path / "ws"), "s3") as reference:
        assert reference.open().storage.get_bytes("videos/a") == b"kept"
