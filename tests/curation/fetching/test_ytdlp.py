"""yt-dlp's generic reader of pages against a loopback server: the real program, as a user runs it."""

from __future__ import annotations

import http.client
import importlib.util
import socket
from pathlib import Path

import pytest

from longvila.config.sourcing import FetchConfig
from longvila.curation.fetching.fetch import fetch_source
from longvila.curation.fetching.fetch_many import fetch_batch
from longvila.curation.fetching.gate import Gate
from longvila.curation.fetching.guard import Guard
from longvila.curation.fetching.pace import Pacer
from longvila.curation.fetching.ytdlp import _refusal
from longvila.errors import ItemError
from longvila.records import Source
from longvila.storage import Workspace
from tests.curation.faulty import FaultyServer, answer, raw, rest
from tests.curation.fetching.test_fetch import CONFIG

CANARY = "CANARY0secret"
VIDEO = bytes(range(256)) * 4000
PAGE = b"""<html><head><title>Page</title><meta property="og:title" content="A walk &amp; a rest">
</head><body><video><source src="/clip.mp4" type="video/mp4"></video></body></html>"""


def video(request) -> None:
    """A clip that is sent in halves at first, and by ranges."""
    asked = request.headers.get("Range", "")
    start = int(asked.removeprefix("bytes=").partition("-")[0] or 0)
    status, span = (
        (206, f"Content-Range: bytes {start}-{len(VIDEO) - 1}/{len(VIDEO)}\n") if asked else (200, "")
    )
    kind = "Content-Type: video/mp4\nAccept-Ranges: bytes\n"
    raw(f"HTTP/1.1 {status} OK\n{span}{kind}Content-Length: {len(VIDEO) - start}", VIDEO[start:])(request)


def broken(request) -> None:
    head = f"HTTP/1.1 200 OK\nContent-Type: video/mp4\nAccept-Ranges: bytes\nContent-Length: {len(VIDEO)}"
    raw(head, VIDEO[: len(VIDEO) // 2])(request)


def page(**scripts) -> dict:
    html = answer(200, PAGE, Content_Type="text/html")
    return {f"/page?token={CANARY}": [html], "/clip.mp4": [video]} | scripts


def source(url: str, **fields: str) -> Source:
    return Source.model_validate({"source_id": "a", "url": url, "fetcher": "yt-dlp"} | fields)


def config(**changes: object) -> FetchConfig:
    return CONFIG.model_copy(update={"attempts": 2, **changes})


def test_a_page_gives_its_video_and_its_title_and_a_second_run_asks_nothing(tmp_path: Path) -> None:
    scripts = page()
    scripts["/clip.mp4"] = [broken, video]
    workspace = Workspace.open(tmp_path)
    with FaultyServer(scripts) as server:
        item = source(f"{server.url}/page?token={CANARY}", license="CC0")
        first = fetch_batch(workspace, [item], config(attempts=4))
        asked = len(server.requests)
        again = fetch_batch(workspace, [item], config(attempts=4))
    assert first.rejections == []
    (found,) = first.results
    assert workspace.storage.get_bytes(found.key) == VIDEO
    assert found.title.startswith("A walk & a rest")
    assert (found.license, found.key[-4:]) == ("CC0", ".mp4")
    assert found.url == f"{server.url}/page"
    assert again.reused
    assert len(server.requests) == asked
    assert any("range" in headers for path, headers in server.requests if path == "/clip.mp4")
    assert not list((tmp_path / "scratch" / "fetch").glob("*.page"))
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(CANARY.encode() in data for data in written)


def test_what_the_program_reaches_passes_the_guard_too(tmp_path: Path) -> None:
    """The page is allowed; what it leads to is on a private host that is not."""
    with FaultyServer({"/clip.mp4": [video]}) as inner:
        inside = inner.url.replace("127.0.0.1", "127.0.0.2")
        html = PAGE.replace(b"/clip.mp4", f"{inside}/clip.mp4".encode())
        scripts = {"/p": [answer(200, html, Content_Type="text/html")]}
        with FaultyServer(scripts) as server, pytest.raises(ItemError) as caught:
            fetch_source(source(f"{server.url}/p"), workspace=Workspace.open(tmp_path), config=config())
    assert caught.value.reason == "private-address"
    assert "127.0.0.2" in caught.value.detail
    assert inner.requests == []


def test_without_the_extra_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "yt_dlp" else real(name, *rest)
    )
    with pytest.raises(ItemError, match=r"no-yt-dlp: .*pip install 'longvila-pipeline\[yt-dlp\]'"):
        fetch_source(source("https://x.org/p"), workspace=Workspace.open(tmp_path), config=config())


def test_a_site_that_refuses(tmp_path: Path) -> None:
    with FaultyServer({f"/p?{CANARY}": [answer(403)]}) as server, pytest.raises(ItemError) as caught:
        fetch_source(source(f"{server.url}/p?{CANARY}"), workspace=Workspace.open(tmp_path), config=config())
    assert caught.value.reason == "forbidden"
    assert CANARY not in str(caught.value)
    assert len([path for path, _ in server.requests]) <= 2


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("ERROR: [youtube] x: Sign in to confirm you're not a bot", "forbidden"),
        ("ERROR: [youtube] x: Private video. Sign in if you've been granted access", "forbidden"),
        ("ERROR: [youtube] x: Video unavailable. This video has been removed by the uploader", "gone"),
        ("ERROR: Unable to download webpage: HTTP Error 404: Not Found", "gone"),
        ("ERROR: unable to download video data: HTTP Error 503: Service Unavailable", "unreachable"),
        ("ERROR: [generic] Unable to download webpage: timed out", "unreachable"),
        ("ERROR: Unsupported URL: https://x.org/p?token=hush", "refused"),
        ("", "refused"),
    ],
)
def test_its_words_become_reasons(said: str, reason: str) -> None:
    error = _refusal("https://x.org/p?token=hush", f"WARNING: something\n{said}\n" if said else "")
    assert error.reason == reason
    assert "hush" not in error.detail


def gate(**changes: object) -> Gate:
    given = {"max_bytes": 10_000, "timeout_s": 2.0} | changes
    return Gate(Guard(("127.0.0.1",)), Pacer(1000.0, host_rates={}), **given)


def through(proxy: Gate, url: str, *, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*proxy.url.removeprefix("http://").split(":"), timeout=5)
    connection.request(method, url, headers={"Proxy-Authorization": "x", "Connection": "keep-alive"})
    answered = connection.getresponse()
    return answered.status, answered.read()


def test_the_gate_passes_requests_on_and_refuses(tmp_path: Path) -> None:
    del tmp_path
    with FaultyServer({"/a?b=1": [answer(200, b"x" * 5000)]}) as server, gate() as proxy:
        assert through(proxy, f"{server.url}/a?b=1") == (200, b"x" * 5000)
        assert "proxy-authorization" not in server.requests[0][1]
        assert server.requests[0][1]["connection"] == "close"
        assert through(proxy, "http://10.0.0.1/")[0] == 403
        assert proxy.refusal is not None
        assert proxy.refusal.reason == "private-address"
        assert through(proxy, "http://no-such-host.invalid/")[0] == 502
        assert through(proxy, "nonsense")[0] == 400


def test_the_gate_counts_bytes() -> None:
    with (
        FaultyServer({"/a": [answer(200, b"x" * 1_000_000)]}) as server,
        gate() as proxy,
        pytest.raises((http.client.IncompleteRead, ConnectionError)),
    ):
        through(proxy, f"{server.url}/a")
    assert proxy.refusal is not None
    assert proxy.refusal.reason == "too-large"


def test_the_gate_tunnels() -> None:
    with FaultyServer({"/a": [rest(b"secret")]}) as server, gate() as proxy:
        tunnel = socket.create_connection(tuple(proxy.url.removeprefix("http://").split(":")), 5)
        tunnel.sendall(f"CONNECT {server.url.removeprefix('http://')} HTTP/1.1\r\n\r\n".encode())
        assert tunnel.recv(1000).startswith(b"HTTP/1.1 200")
        tunnel.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: tunnel.recv(1000), b""))
        tunnel.close()
    assert received.endswith(b"secret")
