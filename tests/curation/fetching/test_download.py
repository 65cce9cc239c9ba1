from __future__ import annotations

import hashlib
import time

import pytest

from longvila.config.sourcing import FetchConfig
from longvila.curation.fetching.download import Downloader
from longvila.errors import ItemError
from tests.curation.faulty import FaultyServer, answer, break_off, rest, stall

BODY = hashlib.sha256(b"seed").digest() * 40_000  # 1.28 MB
LOCAL = ("127.0.0.1",)


def config(**changes: object) -> FetchConfig:
    given = {"backoff_s": 0.01, "timeout_s": 1.0, "requests_per_host_s": 1000.0, "allow_private_hosts": LOCAL}
    return FetchConfig.model_validate(given | changes)


def download(server: FaultyServer, path, settings: FetchConfig | None = None) -> bytes:
    with Downloader(settings or config()) as downloader:
        downloader.download(f"{server.url}/v.mp4", path)
    return path.read_bytes()


def failure(server: FaultyServer, path, settings: FetchConfig | None = None) -> ItemError:
    with pytest.raises(ItemError) as caught:
        download(server, path, settings)
    return caught.value


def test_a_plain_download(tmp_path):
    with FaultyServer({"/v.mp4": [answer(200, BODY)]}) as server:
        assert download(server, tmp_path / "part") == BODY
    assert server.requests[0][1]["accept-encoding"] == "identity"


def test_a_cut_connection_goes_on_where_it_broke_off(tmp_path):
    with FaultyServer({"/v.mp4": [break_off(BODY, 500_000), rest(BODY)]}) as server:
        assert download(server, tmp_path / "part") == BODY
    asked = server.requests[1][1]
    assert asked["if-range"] == '"1"'
    start = int(asked["range"].removeprefix("bytes=").rstrip("-"))
    assert 0 < start <= 500_000


def test_a_later_process_goes_on_too(tmp_path):
    with FaultyServer({"/v.mp4": [break_off(BODY, 500_000), rest(BODY)]}) as server:
        failure(server, tmp_path / "part", config(attempts=1))
        assert download(server, tmp_path / "part") == BODY
    assert "range" in server.requests[1][1]


def test_a_file_that_changed_meanwhile_is_fetched_anew(tmp_path):
    new = BODY[::-1]
    with FaultyServer({"/v.mp4": [break_off(BODY, 500_000), rest(new, etag='"2"')]}) as server:
        assert download(server, tmp_path / "part") == new


def test_without_a_validator_nothing_is_continued(tmp_path):
    with FaultyServer({"/v.mp4": [break_off(BODY, 500_000, etag='W/"1"'), answer(200, BODY)]}) as server:
        assert download(server, tmp_path / "part") == BODY
    assert "range" not in server.requests[1][1]


def test_a_server_that_sends_another_range_is_not_believed(tmp_path):
    wrong = answer(206, BODY[:10], ETag='"1"', Content_Range=f"bytes 0-9/{len(BODY)}")
    with FaultyServer({"/v.mp4": [break_off(BODY, 500_000), wrong, answer(200, BODY)]}) as server:
        assert download(server, tmp_path / "part") == BODY


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_what_may_pass_is_tried_again(tmp_path, status):
    with FaultyServer({"/v.mp4": [answer(status), answer(status), answer(200, BODY)]}) as server:
        assert download(server, tmp_path / "part") == BODY
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "forbidden"),
        (403, "forbidden"),
        (404, "gone"),
        (410, "gone"),
        (451, "forbidden"),
        (400, "refused"),
    ],
)
def test_what_will_not_pass_is_asked_once(tmp_path, status, reason):
    with FaultyServer({"/v.mp4": [answer(status)]}) as server:
        assert failure(server, tmp_path / "part").reason == reason
    assert len(server.requests) == 1


def test_it_gives_up_after_the_attempts(tmp_path):
    with FaultyServer({"/v.mp4": [answer(503)]}) as server:
        error = failure(server, tmp_path / "part", config(attempts=3))
    assert (error.reason, len(server.requests)) == ("unreachable", 3)
    assert "answered 503" in error.detail
    assert "Run it again" in error.detail


def test_silence_is_a_timeout(tmp_path):
    with FaultyServer({"/v.mp4": [stall]}) as server:
        error = failure(server, tmp_path / "part", config(attempts=1, timeout_s=0.2))
    assert error.reason == "unreachable"
    assert "nothing arrived in time" in error.detail


def test_nobody_listens(tmp_path):
    with FaultyServer({}) as server:
        pass
    assert failure(server, tmp_path / "part", config(attempts=2)).reason == "unreachable"


def test_a_redirect_is_followed_and_a_loop_is_not(tmp_path):
    there = answer(302, Location="/there.mp4")
    with FaultyServer({"/v.mp4": [there], "/there.mp4": [answer(200, BODY)]}) as server:
        assert download(server, tmp_path / "part") == BODY
    with FaultyServer({"/v.mp4": [answer(302, Location="/v.mp4")]}) as server:
        error = failure(server, tmp_path / "part", config(max_redirects=3))
    assert (error.reason, len(server.requests)) == ("too-many-redirects", 4)


def test_a_redirect_to_another_protocol_is_refused(tmp_path):
    with FaultyServer({"/v.mp4": [answer(302, Location="file:///etc/passwd")]}) as server:
        assert failure(server, tmp_path / "part").reason == "bad-url"


def test_private_addresses_are_refused_unless_named(tmp_path):
    with FaultyServer({"/v.mp4": [answer(200, BODY)]}) as server:
        error = failure(server, tmp_path / "part", config(allow_private_hosts=()))
        assert error.reason == "private-address"
        assert "allow_private_hosts" in error.detail
        assert not server.requests
        by_name = config(allow_private_hosts=("localhost",))
        with Downloader(by_name) as downloader:
            downloader.download(server.url.replace("127.0.0.1", "localhost") + "/v.mp4", tmp_path / "part")


def test_a_redirect_into_the_private_network_is_refused(tmp_path):
    with FaultyServer({"/v.mp4": [answer(302, Location="http://10.0.0.1/v.mp4")]}) as server:
        assert failure(server, tmp_path / "part").reason == "private-address"


def test_too_large_is_refused_by_promise_and_by_count(tmp_path):
    small = config(max_size_bytes=1000)
    with FaultyServer({"/v.mp4": [answer(200, BODY)]}) as server:
        assert failure(server, tmp_path / "a", small).reason == "too-large"
    assert not (tmp_path / "a").exists()

    def unannounced(request) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(BODY)
        request.close_connection = True

    with FaultyServer({"/v.mp4": [unannounced]}) as server:
        assert failure(server, tmp_path / "b", small).reason == "too-large"


def test_a_deadline_for_the_whole(tmp_path):
    with FaultyServer({"/v.mp4": [answer(200, BODY)]}) as server:
        assert failure(server, tmp_path / "part", config(total_timeout_s=1e-6)).reason == "too-slow"


def test_secrets_stay_out_of_messages(tmp_path):
    with FaultyServer({"/v.mp4?token=hush": [answer(404)]}) as server, Downloader(config()) as downloader:
        url = server.url.replace("http://", "http://me:hush@") + "/v.mp4?token=hush"
        with pytest.raises(ItemError) as caught:
            downloader.download(url, tmp_path / "part")
    assert "hush" not in str(caught.value)


def test_requests_to_one_host_keep_a_pace(tmp_path):
    settings = config(requests_per_host_s=20.0)
    with FaultyServer({"/v.mp4": [answer(200, b"x")]}) as server, Downloader(settings) as downloader:
        start = time.monotonic()
        for i in range(4):
            downloader.download(f"{server.url}/v.mp4", tmp_path / f"{i}")
        assert time.monotonic() - start >= 0.14
