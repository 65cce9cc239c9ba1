"""Servers that answer what nobody expects: never is anything but the whole file taken for it."""

from __future__ import annotations

import email.utils
import gzip
import time
import zlib
from pathlib import Path

import pytest

from longvila.curation.fetching.download import Downloader
from longvila.errors import ItemError
from tests.curation.faulty import FaultyServer, answer, break_off, raw, rest, stall
from tests.curation.fetching.test_download import BODY, config, download, failure

HALF = len(BODY) // 2


@pytest.mark.parametrize(
    "short",
    [
        raw(f"HTTP/1.1 200 OK\nContent-Length: {len(BODY)}", BODY[:HALF]),
        raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"5\r\nabcde\r\n"),
        raw(f"HTTP/1.1 206 OK\nContent-Range: bytes 0-9/{len(BODY)}\nContent-Length: 10", BODY[:10]),
        raw("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 7", b"abcdefg"),
        raw("HTTP/1.1 200 OK\nContent-Length: -5", b"abcde"),
        raw("HTTP/1.1 200 OK\nContent-Length: many", b"abcde"),
        raw("HTTP/1.1 206 Partial Content\nContent-Length: 10", BODY[:10]),
        raw("NOT HTTP", b"at all"),
        raw("HTTP/1.1 200 OK\nX: " + "y" * 200_000, BODY),
        raw("", b""),
    ],
)  # fmt: skip
def test_what_is_short_or_no_answer_is_never_the_file(tmp_path: Path, short) -> None:
    with FaultyServer({"/v.mp4": [short]}) as server:
        error = failure(server, tmp_path / "part", config(attempts=2))
    assert error.reason == "unreachable"
    assert len(server.requests) >= 2


def test_a_body_without_a_length_is_whole_when_it_ends_well(tmp_path: Path) -> None:
    body = b"5\r\nabcde\r\n0\r\n\r\n"
    chunked = raw("HTTP/1.1 200 OK\nContent-Length: 3\nTransfer-Encoding: chunked", body)
    with FaultyServer({"/v.mp4": [chunked]}) as server:
        assert download(server, tmp_path / "part") == b"abcde"


def test_a_server_that_sends_a_range_in_pieces_is_asked_for_the_next(tmp_path: Path) -> None:
    def piece(request) -> None:
        asked = request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        stop = min(start + 300_000, len(BODY))
        span = f"bytes {start}-{stop - 1}/{len(BODY)}"
        answer(206, BODY[start:stop], ETag='"1"', Content_Range=span)(request)

    with FaultyServer({"/v.mp4": [piece]}) as server:
        assert download(server, tmp_path / "part", config(attempts=1)) == BODY
    assert len(server.requests) == 5


def test_many_breaks_are_no_failure_while_every_attempt_brings_more(tmp_path: Path) -> None:
    def some(request) -> None:
        asked = request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        span = f"Content-Range: bytes {start}-{len(BODY) - 1}/{len(BODY)}\n" if asked else ""
        head = f'HTTP/1.1 {206 if asked else 200} OK\n{span}ETag: "1"\nContent-Length: {len(BODY) - start}'
        raw(head, BODY[start : start + 200_000])(request)

    with FaultyServer({"/v.mp4": [some]}) as server:
        assert download(server, tmp_path / "part", config(attempts=2)) == BODY
    assert len(server.requests) == 7


@pytest.mark.parametrize(
    "other",
    [
        answer(206, BODY[:10], ETag='"1"', Content_Range=f"bytes 7-16/{len(BODY)}"),
        answer(206, BODY[:10], ETag='"1"', Content_Range="bytes 500000-500009/999999"),
        answer(206, BODY[500_000:], ETag='"2"', Content_Range=f"bytes 500000-{len(BODY) - 1}/{len(BODY)}"),
        answer(206, BODY[:10], ETag='"1"', Content_Type="multipart/byteranges; boundary=x"),
        answer(416, Content_Range="bytes */77"),
        answer(416),
    ],
)
def test_a_range_of_something_else_begins_anew(tmp_path: Path, other) -> None:
    script = [break_off(BODY, 500_000), other, answer(200, BODY, ETag='"1"')]
    with FaultyServer({"/v.mp4": script}) as server:
        assert download(server, tmp_path / "part") == BODY
    assert "range" in server.requests[1][1]
    assert "range" not in server.requests[2][1]


def test_a_416_behind_the_last_byte_says_that_all_is_there(tmp_path: Path) -> None:
    part = tmp_path / "part"
    unknown_length = raw('HTTP/1.1 200 OK\nETag: "1"\nTransfer-Encoding: chunked', b"5\r\nabcde\r\n")
    whole = answer(416, Content_Range="bytes */5", ETag='"1"')
    with FaultyServer({"/v.mp4": [unknown_length, whole]}) as server:
        assert download(server, part) == b"abcde"
    assert server.requests[1][1]["range"] == "bytes=5-"


def test_what_is_whole_is_not_asked_for_again(tmp_path: Path) -> None:
    with FaultyServer({"/v.mp4": [answer(200, BODY, ETag='"1"')]}) as server:
        download(server, tmp_path / "part")
        assert download(server, tmp_path / "part") == BODY
    assert len(server.requests) == 1


def test_a_server_without_ranges_begins_anew_and_nothing_is_doubled(tmp_path: Path) -> None:
    with FaultyServer({"/v.mp4": [break_off(BODY, 500_000), answer(200, BODY)]}) as server:
        assert download(server, tmp_path / "part") == BODY
    assert "range" in server.requests[1][1]


@pytest.mark.parametrize(("age_s", "goes_on"), [(3600, True), (5, False)])
def test_a_date_is_a_condition_only_when_it_is_old_enough(tmp_path: Path, age_s: int, goes_on: bool) -> None:
    changed = email.utils.formatdate(time.time() - age_s, usegmt=True)
    now = email.utils.formatdate(time.time(), usegmt=True)
    head = f'HTTP/1.1 200 OK\nDate: {now}\nLast-Modified: {changed}\nETag: W/"1"\nContent-Length: {len(BODY)}'
    script = [raw(head, BODY[:HALF]), rest(BODY, etag=changed)]
    with FaultyServer({"/v.mp4": script}) as server:
        assert download(server, tmp_path / "part") == BODY
    assert ("range" in server.requests[1][1]) is goes_on


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_what_is_packed_though_asked_not_to_is_unpacked(tmp_path: Path, name: str, pack) -> None:
    packed = pack(BODY)
    script = [answer(200, packed, Content_Encoding=name, ETag='"1"')]
    with FaultyServer({"/v.mp4": script}) as server:
        assert download(server, tmp_path / "part") == BODY


def test_packed_bytes_that_are_none_and_packings_not_known(tmp_path: Path) -> None:
    scripts = {
        "/v.mp4": [answer(200, BODY, Content_Encoding="gzip")],
        "/b.mp4": [answer(200, BODY, Content_Encoding="br")],
    }
    with FaultyServer(scripts) as server, Downloader(config(attempts=2)) as downloader:
        assert failure(server, tmp_path / "a", config(attempts=2)).reason == "unreachable"
        with pytest.raises(ItemError, match="packs it as 'br'"):
            downloader.download(f"{server.url}/b.mp4", tmp_path / "b")
    assert not (tmp_path / "a").exists()


def test_a_little_that_unpacks_to_very_much_is_too_large(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with FaultyServer({"/v.mp4": [answer(200, bomb, Content_Encoding="gzip")]}) as server:
        assert failure(server, tmp_path / "part", config(max_size_bytes=1_000_000)).reason == "too-large"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_says_when_to_come_again(tmp_path: Path, as_date: bool) -> None:
    def busy(request) -> None:
        at = email.utils.formatdate(time.time() + 2, usegmt=True)
        answer(429, Retry_After=at if as_date else "1")(request)

    with FaultyServer({"/v.mp4": [busy, answer(200, BODY)]}) as server:
        start = time.monotonic()
        assert download(server, tmp_path / "part") == BODY
    assert 0.9 <= time.monotonic() - start < 4.0
    assert len(server.requests) == 2


@pytest.mark.parametrize("asked", ["86400", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_more_patience_than_allowed_ends_the_attempts(tmp_path: Path, asked: str) -> None:
    with FaultyServer({"/v.mp4": [answer(503, Retry_After=asked)]}) as server:
        assert failure(server, tmp_path / "part").reason == "unreachable"
    assert len(server.requests) == 1


@pytest.mark.parametrize("asked", ["", "soon", "-1", "1e9"])
def test_a_pause_that_is_no_number_is_our_own(tmp_path: Path, asked: str) -> None:
    with FaultyServer({"/v.mp4": [answer(503, Retry_After=asked), answer(200, BODY)]}) as server:
        assert download(server, tmp_path / "part") == BODY


def test_no_attempt_begins_after_the_deadline(tmp_path: Path) -> None:
    start = time.monotonic()
    with FaultyServer({"/v.mp4": [stall]}) as server:
        error = failure(server, tmp_path / "part", config(total_timeout_s=0.5, timeout_s=0.3, backoff_s=0.3))
    assert error.reason == "too-slow"
    assert time.monotonic() - start < 1.5


def test_user_and_password_go_to_their_own_server_only(tmp_path: Path) -> None:
    with (
        FaultyServer({"/v.mp4": [answer(200, b"x")]}) as other,
        FaultyServer({"/v.mp4": [answer(302, Location=f"{other.url}/v.mp4")]}) as server,
        Downloader(config()) as downloader,
    ):
        url = server.url.replace("http://", "http://me:p%40w@")
        downloader.download(f"{url}/v.mp4", tmp_path / "part")
    assert server.requests[0][1]["authorization"] == "Basic bWU6cEB3"
    assert "authorization" not in other.requests[0][1]


@pytest.mark.parametrize("location", ["http://[bad", "//", "http://", "data:text/plain,x", "ftp://x.org/v"])
def test_a_redirect_to_no_address_is_refused(tmp_path: Path, location: str) -> None:
    with FaultyServer({"/v.mp4": [answer(302, Location=location)]}) as server:
        assert failure(server, tmp_path / "part").reason in ("bad-url", "too-many-redirects")


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://:80/x",
        "http://exa mple.org/",
        "http://x.org:99999/",
        "http://" + "a" * 300 + ".org/",
    ],
)
def test_no_address(tmp_path: Path, url: str) -> None:
    with pytest.raises(ItemError) as caught, Downloader(config(attempts=1)) as downloader:
        downloader.download(url, tmp_path / "part")
    assert caught.value.reason in ("bad-url", "unreachable")


def test_the_environments_proxy_is_used_and_private_addresses_stay_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyServer({"http://8.8.8.8/v.mp4": [answer(200, BODY)]}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        with Downloader(config()) as downloader:
            downloader.download("http://8.8.8.8/v.mp4", tmp_path / "part")
            with pytest.raises(ItemError, match="private network"):
                downloader.download("http://10.0.0.1/v.mp4", tmp_path / "other")
    assert (tmp_path / "part").read_bytes() == BODY
    assert len(proxy.requests) == 1
