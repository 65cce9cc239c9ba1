"""One download over HTTP: limited in size, time and redirects, resumed where it broke off, never trusted.

A download grows in a ``.part`` file beside which a small JSON keeps the server's ETag. After a break, in this
process or a later one, only the missing bytes are asked for, on the condition that the file has not changed.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import ssl
import threading
import time
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
import tenacity

from longvila.config.sourcing import FetchConfig
from longvila.curation.sources import redacted
from longvila.errors import ItemError, NetworkError
from longvila.storage import write_text
from longvila.storage.files import os_errors

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 18
_MAX_BACKOFF_S = 60.0
_REDIRECTS = (301, 302, 303, 307, 308)
_RETRIED = (408, 425, 429)
_REFUSALS = {
    401: ("forbidden", "the server asks for credentials (401)"),
    403: ("forbidden", "the server forbids it (403)"),
    404: ("gone", "there is nothing at this address (404)"),
    407: ("forbidden", "a proxy asks for credentials (407)"),
    410: ("gone", "it was removed for good (410)"),
    451: ("forbidden", "it is withheld for legal reasons (451)"),
}


class Downloader:
    """Downloads with one connection pool and one pace per host. Safe to share among threads."""

    def __init__(self, config: FetchConfig) -> None:
        self.config = config
        self._client = httpx.Client(timeout=config.timeout_s, follow_redirects=False)
        self._lock = threading.Lock()
        self._next_turn: dict[str, float] = {}

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def download(self, url: str, part: Path) -> None:
        """Bring the whole of ``url`` into ``part``, going on with what is there.

        Raises ``ItemError`` (gone, forbidden, refused, unreachable, too-large, too-slow, too-many-redirects,
        private-address, bad-url) and ``MachineError`` for the local disk.
        """
        deadline = time.monotonic() + self.config.total_timeout_s
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.config.attempts),
            wait=tenacity.wait_exponential_jitter(
                initial=self.config.backoff_s, max=_MAX_BACKOFF_S, jitter=self.config.backoff_s
            ),
            retry=tenacity.retry_if_exception_type(NetworkError),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    self._attempt(url, part, deadline)
        except NetworkError as error:
            raise ItemError(
                "unreachable",
                f"{redacted(url)}: {error} ({self.config.attempts} attempts). Run it again later.",
            ) from error

    def _attempt(self, url: str, part: Path, deadline: float) -> None:
        try:
            self._follow(url, part, deadline)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ItemError("bad-url", f"{redacted(url)} is not an address that can be fetched") from error
        except httpx.TransportError as error:
            if isinstance(error.__cause__ and error.__cause__.__cause__, ssl.SSLCertVerificationError):
                raise ItemError(
                    "forbidden", f"{redacted(url)}: the server's certificate is not valid"
                ) from error
            raise NetworkError(_words(error)) from error

    def _follow(self, url: str, part: Path, deadline: float) -> None:
        current = url
        for _ in range(self.config.max_redirects + 1):
            host = self._check_address(current)
            self._wait_for_turn(host)
            with self._client.stream("GET", current, headers=_headers(part, url)) as response:
                self._check_peer(response, current)
                if response.status_code in _REDIRECTS and "location" in response.headers:
                    current = urljoin(current, response.headers["location"])
                    continue
                self._receive(response, url, part, deadline)
                return
        raise ItemError(
            "too-many-redirects", f"{redacted(url)} redirects more than {self.config.max_redirects} times"
        )

    def _receive(self, response: httpx.Response, url: str, part: Path, deadline: float) -> None:
        status = response.status_code
        if status == 416:  # what we hold is not a part of what is there now, or all of it
            _forget(part)
            raise NetworkError("the file changed while it was fetched")
        if status in _RETRIED or status >= 500:
            raise NetworkError(f"the server answered {status}")
        if status not in (200, 206):
            reason, words = _REFUSALS.get(status, ("refused", f"the server answered {status}"))
            raise ItemError(reason, f"{redacted(url)}: {words}")
        start = _start_of(response) if status == 206 else 0
        if start != (part.stat().st_size if part.exists() else 0) and status == 206:
            _forget(part)
            raise NetworkError("the server sent other bytes than were asked for")
        length = response.headers.get("content-length")
        if length is not None and start + int(length) > self.config.max_size_bytes:
            raise self._too_large(url)
        write_text(_meta_path(part), json.dumps({"url": url, "validator": _validator(response)}))
        self._write(response, url, part, start, deadline)

    def _write(self, response: httpx.Response, url: str, part: Path, start: int, deadline: float) -> None:
        size = start
        with os_errors(f"write {part}"), part.open("r+b" if start else "wb") as file:
            file.seek(start)
            for piece in response.iter_raw(_CHUNK_BYTES):
                size += len(piece)
                if size > self.config.max_size_bytes:
                    raise self._too_large(url)
                if time.monotonic() > deadline:
                    raise ItemError(
                        "too-slow", f"{redacted(url)}: not whole after {self.config.total_timeout_s:.0f} s"
                    )
                file.write(piece)

    def _too_large(self, url: str) -> ItemError:
        return ItemError("too-large", f"{redacted(url)}: more than {self.config.max_size_bytes:,} bytes")

    def _wait_for_turn(self, host: str) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next_turn.get(host, 0.0))
            self._next_turn[host] = turn + 1.0 / self.config.requests_per_host_s
        time.sleep(turn - now)

    def _check_address(self, url: str) -> str:
        """Return the host; refuse other protocols, and private networks that are not allowed by name."""
        parts = urlsplit(url)
        host = parts.hostname
        if parts.scheme not in ("http", "https") or not host:
            raise ItemError("bad-url", f"{redacted(url)} is not an HTTP address")
        if host in self.config.allow_private_hosts or _through_proxy(parts.scheme, host):
            return host
        try:
            found = socket.getaddrinfo(host, parts.port or 0, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NetworkError(f"the host {host} was not found ({error.strerror})") from error
        for *_, address in found:
            self._refuse_private(str(address[0]), host)
        return host

    def _check_peer(self, response: httpx.Response, url: str) -> None:
        """Look at who really answered: a name can resolve to another address the second time."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        stream = response.extensions.get("network_stream")
        peer = stream.get_extra_info("server_addr") if stream is not None else None
        if peer and host not in self.config.allow_private_hosts and not _through_proxy(parts.scheme, host):
            self._refuse_private(str(peer[0]), host)

    def _refuse_private(self, address: str, host: str) -> None:
        ip = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(ip, "ipv4_mapped", None)
        if (mapped or ip).is_global or address in self.config.allow_private_hosts:
            return
        raise ItemError(
            "private-address",
            f"{host} is {address}, in a private network. If meant, name it in fetch.allow_private_hosts.",
        )


def _through_proxy(scheme: str, host: str) -> bool:
    proxies = getproxies()
    return bool(proxies.get(scheme) or proxies.get("all")) and not proxy_bypass(host)


def _headers(part: Path, url: str) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity", "User-Agent": "longvila-pipeline"}
    validator = _stored_validator(part, url)
    if validator:
        headers |= {"Range": f"bytes={part.stat().st_size}-", "If-Range": validator}
    return headers


def _stored_validator(part: Path, url: str) -> str | None:
    """Return the ETag or date on whose condition the part may be continued; None to begin anew."""
    try:
        meta = json.loads(_meta_path(part).read_text())
        has_bytes = part.stat().st_size > 0
    except (OSError, ValueError):
        return None
    return meta.get("validator") if has_bytes and meta.get("url") == url else None


def _validator(response: httpx.Response) -> str | None:
    etag = response.headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("last-modified")


def _start_of(response: httpx.Response) -> int:
    unit, _, span = response.headers.get("content-range", "").partition(" ")
    start = span.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdigit() else -1


def _meta_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _meta_path(part).unlink(missing_ok=True)


def _words(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "nothing arrived in time"
    return str(error).rstrip(".") or type(error).__name__
