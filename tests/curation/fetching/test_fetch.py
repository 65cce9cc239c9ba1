from __future__ import annotations

import hashlib

import pytest

from longvila.config.sourcing import FetchConfig
from longvila.curation.fetching.fetch import fetch_source
from longvila.errors import ItemError
from longvila.records import Source
from longvila.storage import Workspace
from tests.curation.faulty import FaultyServer, answer, break_off, rest

BODY = b"not really a video" * 1000
SHA = hashlib.sha256(BODY).hexdigest()
CONFIG = FetchConfig(backoff_s=0.01, requests_per_host_s=1000.0, allow_private_hosts=("127.0.0.1",))


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "workspace")


def fetch(workspace: Workspace, url: str, **fields: object):
    source = Source.model_validate({"source_id": "a", "url": url} | fields)
    return fetch_source(source, workspace=workspace, config=CONFIG)


def reason(workspace: Workspace, url: str, **fields: object) -> str:
    with pytest.raises(ItemError) as caught:
        fetch(workspace, url, **fields)
    return caught.value.reason


def test_a_file_is_stored_by_its_content(workspace):
    with FaultyServer({"/a%20b/v.MP4?sig=1": [break_off(BODY, 5000), rest(BODY)]}) as server:
        found = fetch(
            workspace, f"{server.url}/a%20b/v.MP4?sig=1", split="heldout", title="T", author="A", license="L"
        )
    assert found.key == f"videos/{SHA[:2]}/{SHA}.mp4"
    assert (found.sha256, found.size_bytes) == (SHA, len(BODY))
    assert (found.split, found.title, found.author, found.license) == ("heldout", "T", "A", "L")
    assert found.url == f"{server.url}/a%20b/v.MP4"
    assert workspace.storage.get_bytes(found.key) == BODY
    assert not list(workspace.scratch("fetch").glob("*.part*[!k]"))


def test_a_known_file_is_not_fetched_again(workspace):
    with FaultyServer({"/v.mp4": [answer(200, BODY)]}) as server:
        first = fetch(workspace, f"{server.url}/v.mp4", sha256=SHA)
        assert fetch(workspace, f"{server.url}/v.mp4", sha256=SHA) == first
    assert len(server.requests) == 1


def test_content_is_checked(workspace):
    with FaultyServer({"/v.mp4": [answer(200, BODY)], "/e.mp4": [answer(200)]}) as server:
        url = f"{server.url}/v.mp4"
        assert reason(workspace, url, size_bytes=5) == "size-differs"
        assert reason(workspace, url, sha256="0" * 64) == "checksum-differs"
        assert reason(workspace, f"{server.url}/e.mp4") == "empty"
    assert workspace.storage.list("videos/") == []
    assert not list(workspace.scratch("fetch").glob("*.part"))


@pytest.mark.parametrize("as_url", [False, True])
def test_local_files(workspace, tmp_path, as_url):
    path = tmp_path / "my video.mkv"
    path.write_bytes(BODY)
    found = fetch(workspace, path.as_uri() if as_url else str(path))
    assert found.key == f"videos/{SHA[:2]}/{SHA}.mkv"
    assert path.read_bytes() == BODY
    assert reason(workspace, str(tmp_path / "none.mp4")) == "missing"


def test_an_unknown_ending_never_becomes_a_path(workspace, tmp_path):
    path = tmp_path / "evil.sh;x"
    path.write_bytes(BODY)
    assert fetch(workspace, str(path)).key.endswith(f"{SHA}.video")


def test_too_large_a_local_file(workspace, tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(BODY)
    small = FetchConfig(max_size_bytes=10)
    with pytest.raises(ItemError, match="too-large"):
        fetch_source(Source(source_id="a", url=str(path)), workspace=workspace, config=small)


def test_a_scheme_that_is_not_fetched_is_said_not_looked_for_on_disk(workspace):
    with pytest.raises(ItemError, match="ftp is not fetched") as caught:
        fetch(workspace, "ftp://127.0.0.1/a.mp4")
    assert caught.value.reason == "bad-url"
