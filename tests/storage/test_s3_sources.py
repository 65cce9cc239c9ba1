"""Sources in a bucket and videos stored in one, against the real server; here to share that one server."""

from __future__ import annotations

import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from longvila.curation.fetching.fetch import fetch_source
from longvila.curation.fetching.fetch_many import fetch_batch
from longvila.curation.fetching.s3_download import download_object
from longvila.curation.listing.sources import list_sources
from longvila.errors import InputError, ItemError, MachineError, NetworkError
from longvila.records import Source
from longvila.storage import Workspace, open_storage
from longvila.storage.s3 import S3Storage
from tests.curation.faulty import FaultyServer, answer
from tests.curation.fetching.test_fetch import CONFIG

BODY = hashlib.sha256(b"s3").digest() * 125_000  # 4 MB
LARGE = BODY * 5  # two parts of a multipart upload


class Between(threading.Thread):
    """A way to the S3 server that notes every GET and cuts the first body after ``cut_after`` bytes."""

    def __init__(self, endpoint: str, *, cut_after: int | None = None, pause_s: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.requests: list[tuple[str, str | None, str | None, int]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._pass_on("HEAD")

            def do_GET(self) -> None:
                self._pass_on("GET")

            def _pass_on(self, method: str) -> None:
                sent = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                asked = urllib.request.Request(f"{endpoint}{self.path}", headers=sent, method=method)
                try:
                    answered = urllib.request.urlopen(asked)
                except urllib.error.HTTPError as error:
                    answered = error
                self.send_response(answered.status)
                for name, value in answered.headers.items():
                    if name.lower() not in ("connection", "date", "server"):
                        self.send_header(name, value)
                self.end_headers()
                if method == "GET":
                    self._body(answered)

            def _body(self, answered) -> None:
                cuts = cut_after is not None and not any(sent for *_, sent in outer.requests)
                count = 0
                try:
                    while piece := answered.read(65536):
                        self.wfile.write(piece)
                        count += len(piece)
                        time.sleep(pause_s)
                        if cuts and count >= cut_after:
                            self.wfile.flush()
                            self.connection.close()
                            break
                except OSError:
                    self.close_connection = True
                self.close_connection = self.close_connection or cuts
                headers = self.headers
                outer.requests.append((self.path, headers.get("Range"), headers.get("If-Match"), count))

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def run(self) -> None:
        self._server.serve_forever(0.05)

    def seen(self, count: int) -> list[tuple[str, str | None, str | None, int]]:
        """The GET requests, when so many have ended: path, Range, If-Match, bytes sent."""
        deadline = time.monotonic() + 20
        while len(self.requests) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.requests

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def uploaded(s3_url: str) -> str:
    """A large object; its address."""
    open_storage(s3_url).put_bytes("raw/film.mp4", BODY)
    return f"{s3_url}/raw/film.mp4"


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Between]]:
    """Started ways to the server, which are stopped at the end."""
    started: list[Between] = []
    yield started
    for one in started:
        one.stop()


def go_through(started: list[Between], monkeypatch: pytest.MonkeyPatch, **how) -> Between:
    one = Between(os.environ["AWS_ENDPOINT_URL"], **how)
    one.start()
    started.append(one)
    monkeypatch.setenv("AWS_ENDPOINT_URL", one.endpoint)
    return one


def test_an_object_is_fetched_and_stored_by_its_content(s3_url: str, tmp_path: Path) -> None:
    """From a bucket into a bucket, in parts, and back by ranges."""
    open_storage(s3_url).put_bytes("raw/film.mp4", LARGE)
    workspace = Workspace.open(tmp_path, f"{s3_url}/work")
    source = Source(source_id="a", url=f"{s3_url}/raw/film.mp4")
    found = fetch_source(source, workspace=workspace, config=CONFIG)
    sha256 = hashlib.sha256(LARGE).hexdigest()
    assert (found.sha256, found.key) == (sha256, f"videos/{sha256[:2]}/{sha256}.mp4")
    assert workspace.storage.fingerprint(found.key).endswith("-2")  # an ETag of two parts
    assert workspace.storage.get_bytes(found.key) == LARGE
    seam = 16 * 2**20
    assert workspace.storage.read_range(found.key, seam - 3, seam + 3) == LARGE[seam - 3 : seam + 3]
    assert not list((tmp_path / "scratch" / "fetch").glob("*.part"))


def test_a_broken_connection_goes_on_with_a_range_of_the_same_version(
    uploaded: str, tmp_path: Path, between: list[Between], monkeypatch: pytest.MonkeyPatch
) -> None:
    way = go_through(between, monkeypatch, cut_after=1_000_000)
    download_object(uploaded, tmp_path / "part", config=CONFIG)
    assert (tmp_path / "part").read_bytes() == BODY
    (_, first, etag, _), (_, second, same, _) = way.seen(2)
    assert first == "bytes=0-"
    assert second is not None
    start = int(second.removeprefix("bytes=").rstrip("-"))
    assert 0 < start <= 1_100_000
    assert etag == same


def test_a_killed_process_goes_on_where_it_was(
    uploaded: str, tmp_path: Path, between: list[Between], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.curation.fetching.test_fetch_resume import child, wait_for_part

    way = go_through(between, monkeypatch, pause_s=0.02)
    process = child(tmp_path, uploaded)
    part = wait_for_part(tmp_path, 1_000_000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    had = part.stat().st_size
    assert 1_000_000 <= had < len(BODY)
    download_object(uploaded, part, config=CONFIG)
    assert part.read_bytes() == BODY
    sent = {asked: num_bytes for _, asked, _, num_bytes in way.seen(2)}
    assert sent[f"bytes={had}-"] == len(BODY) - had


def test_an_object_that_changed_meanwhile_is_fetched_anew(uploaded: str, s3_url: str, tmp_path: Path) -> None:
    storage = open_storage(s3_url)
    assert isinstance(storage, S3Storage)
    old_etag = storage.fingerprint("raw/film.mp4")
    part = tmp_path / "part"
    with pytest.raises(ItemError, match="too-large"):
        download_object(uploaded, part, config=CONFIG, max_size_bytes=10)
    from longvila.curation.fetching.partial import Partial

    partial = Partial(part, uploaded)
    partial.begin(validator=old_etag, total=len(BODY))
    part.write_bytes(BODY[:1000])
    storage.put_bytes("raw/film.mp4", BODY[::-1][:5000])
    with pytest.raises(NetworkError, match="changed while it was read"):
        list(storage.stream("raw/film.mp4", start=1000, etag=old_etag))
    download_object(uploaded, part, config=CONFIG)
    assert part.read_bytes() == BODY[::-1][:5000]


@pytest.mark.parametrize(
    ("key", "reason"),
    [("none.mp4", "missing"), ("", "bad-url"), ("a//b.mp4", "missing"), ("../x", "missing")],
)
def test_what_is_not_there(s3_url: str, tmp_path: Path, key: str, reason: str) -> None:
    bucket = s3_url.split("/")[2]
    with pytest.raises(ItemError) as caught:
        download_object(f"s3://{bucket}/{key}", tmp_path / "part", config=CONFIG)
    assert caught.value.reason == reason


def test_a_bucket_that_is_not_there_and_keys_that_are_refused(
    uploaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ItemError, match="missing: "):
        download_object("s3://no-such-bucket-at-all/a.mp4", tmp_path / "part", config=CONFIG)
    with pytest.raises(ItemError, match="missing: "):
        download_object("s3://B_A_D/a.mp4", tmp_path / "part", config=CONFIG)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ItemError, match="forbidden: "):
        download_object(uploaded, tmp_path / "part", config=CONFIG)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(MachineError, match="no S3 credentials"):
        download_object(uploaded, tmp_path / "part", config=CONFIG)


def test_a_prefix_and_a_table_in_a_bucket(s3_url: str, tmp_path: Path) -> None:
    storage = open_storage(s3_url)
    for key in ("raw/a.mp4", "raw/deep/b?x#y .MP4", "raw/notes.txt", "raw/.hidden.mp4", "raw2/c.mp4"):
        storage.put_bytes(key, key.encode())
    storage.put_bytes("lists/t.csv", b"url\nclips/d.mp4\nhttps://x.org/e.mp4\n")
    storage.put_bytes("lists/clips/d.mp4", b"d")
    listed = tmp_path / "sources.yaml"
    listed.write_text(f"folders: [{{url: {s3_url}/raw}}]\ntables: [{{url: {s3_url}/lists/t.csv}}]\n")
    listing = list_sources(listed, scratch=tmp_path)
    assert [source.url.removeprefix(s3_url) for source in listing.sources] == [
        "/raw/a.mp4", "/raw/deep/b?x#y .MP4", "/lists/clips/d.mp4", "https://x.org/e.mp4"
    ]  # fmt: skip
    assert [source.size_bytes for source in listing.sources[:2]] == [9, 19]
    workspace = Workspace.open(tmp_path / "ws")
    result = fetch_batch(workspace, listing.sources[:3], CONFIG)
    assert [workspace.storage.get_bytes(found.key) for found in result.results] == [
        b"raw/a.mp4", b"raw/deep/b?x#y .MP4", b"d"
    ]  # fmt: skip
    listed.write_text("folders: [{url: s3://no-such-bucket-at-all/raw}]\n")
    with pytest.raises(InputError, match="no bucket 'no-such-bucket-at-all'"):
        list_sources(listed, scratch=tmp_path)


def test_a_kill_while_it_uploads_leaves_nothing_to_be_seen(s3_url: str, tmp_path: Path) -> None:
    code = (
        "import os, sys, threading; from longvila.storage import open_storage; from pathlib import Path\n"
        "threading.Timer(0.15, lambda: os.kill(os.getpid(), 9)).start()\n"
        "open_storage(sys.argv[1]).put_file('videos/a.mp4', Path(sys.argv[2]))"
    )
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    ended = subprocess.run(
        [sys.executable, "-c", code, s3_url, str(path)], check=False, env={**os.environ, "PYTHONPATH": "."}
    )
    storage = open_storage(s3_url)
    assert storage.list("videos/") in ([], ["videos/a.mp4"])
    if ended.returncode == -signal.SIGKILL:
        assert storage.list("videos/") == []
    storage.put_file("videos/a.mp4", path)
    assert storage.size("videos/a.mp4") == len(LARGE)


def test_a_web_source_goes_into_a_bucket(s3_url: str, tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path, f"{s3_url}/work")
    with FaultyServer({"/v.mp4": [answer(200, BODY[:1000])]}) as server:
        source = Source(source_id="a", url=f"{server.url}/v.mp4")
        found = fetch_source(source, workspace=workspace, config=CONFIG)
        again = fetch_batch(workspace, [source], CONFIG)
    assert workspace.storage.get_bytes(found.key) == BODY[:1000]
    assert again.results[0].key == found.key
