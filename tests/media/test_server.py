from __future__ import annotations

import httpx
import pytest

from longvila.media.server import FileServer


@pytest.fixture
def server(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a b.bin").write_bytes(bytes(range(100)))
    (root / "empty").touch()
    (root / ".hidden").write_text("no")
    (tmp_path / "secret").write_text("no")
    with FileServer(root) as running:
        yield running


def test_whole_file_and_head(server):
    found = httpx.get(f"{server.url}/sub/a%20b.bin?x=1")
    assert (found.status_code, found.content) == (200, bytes(range(100)))
    head = httpx.head(f"{server.url}/sub/a%20b.bin")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "100", b"")
    assert httpx.get(f"{server.url}/empty").content == b""


@pytest.mark.parametrize(
    ("asked", "start", "stop"), [("10-19", 10, 20), ("90-", 90, 100), ("95-500", 95, 100)]
)
def test_ranges(server, asked, start, stop):
    found = httpx.get(f"{server.url}/sub/a%20b.bin", headers={"Range": f"bytes={asked}"})
    assert found.status_code == 206
    assert found.content == bytes(range(start, stop))
    assert found.headers["content-range"] == f"bytes {start}-{stop - 1}/100"


def test_a_range_of_a_file_that_changed_is_the_whole_file(server):
    headers = {"Range": "bytes=10-", "If-Range": '"another"'}
    found = httpx.get(f"{server.url}/sub/a%20b.bin", headers=headers)
    assert (found.status_code, len(found.content)) == (200, 100)


def test_a_range_behind_the_end(server):
    found = httpx.get(f"{server.url}/sub/a%20b.bin", headers={"Range": "bytes=100-"})
    assert (found.status_code, found.headers["content-range"]) == (416, "bytes */100")


@pytest.mark.parametrize(
    "path", ["/none", "/sub", "/", "/.hidden", "/../secret", "/%2e%2e/secret", "/sub/%00"]
)
def test_nothing_else_is_served(server, path):
    with httpx.Client() as client:
        request = client.build_request("GET", server.url)
        request.url = request.url.copy_with(raw_path=path.encode())
        assert client.send(request).status_code == 404


def test_it_listens_on_loopback_only(server):
    assert server.url.startswith("http://127.0.0.1:")
