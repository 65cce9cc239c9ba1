from __future__ import annotations

import socket
from typing import Any

import pytest

from longvila.config.sourcing import FetchConfig
from longvila.curation.fetching.download import Downloader
from longvila.curation.fetching.guard import Guard
from longvila.errors import ItemError
from tests.curation.faulty import FaultyServer, answer


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0.0.0.0",
        "0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%lo",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
    ],
)
def test_private_addresses_in_all_their_forms(host: str) -> None:
    with pytest.raises(ItemError) as caught:
        Guard(()).addresses(host, 80)
    assert caught.value.reason == "private-address"
    assert "allow_private_hosts" in caught.value.detail


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"])
def test_public_addresses(host: str) -> None:
    assert Guard(()).addresses(host, 80) == [host]


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        ("localhost", "LOCALHOST"),
        ("127.0.0.1", "localhost"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("[::1]", "::1"),
        ("fd00::/8", "fd00::5"),
    ],
)
def test_what_is_named_is_allowed(allowed: str, host: str) -> None:
    assert Guard((allowed,)).addresses(host, 80)


def test_one_private_address_of_a_name_is_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(0, 0, 0, "", ("8.8.8.8", 80)), (0, 0, 0, "", ("10.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(ItemError, match=r"10\.0\.0\.1, in a private network"):
        Guard(()).addresses("rebind.example", 80)


def test_a_name_that_leads_elsewhere_the_second_time_reaches_nobody(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the name is public when looked at first, and this machine from then on."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **named: Any) -> Any:
        if host != "rebind.example":
            return real(host, *args, **named)
        asked.append(host)
        address = "192.0.2.1" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, args[0]))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    config = FetchConfig(
        attempts=2, backoff_s=0.01, timeout_s=0.2, requests_per_host_s=1000.0,
        allow_private_hosts=("192.0.2.1",),
    )  # fmt: skip
    with FaultyServer({"/v.mp4": [answer(200, b"secret")]}) as server, Downloader(config) as downloader:
        url = f"{server.url}/v.mp4".replace("127.0.0.1", "rebind.example")
        with pytest.raises(ItemError) as caught:
            downloader.download(url, tmp_path / "part")
    assert caught.value.reason == "private-address"
    assert server.requests == []
    assert len(asked) == 2  # once for each attempt: what was looked at is what is connected to
    assert not (tmp_path / "part").exists()
