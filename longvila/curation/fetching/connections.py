"""HTTP requests on guarded connections, one pool for all threads; nothing of an address is logged."""

from __future__ import annotations

import base64
import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from longvila.config.addresses import redacted
from longvila.curation.fetching.guard import Guard, GuardedBackend
from longvila.errors import InputError, ItemError, NetworkError

_PORTS = {"http": 80, "https": 443}


class Answer:
    """A server's answer: status, headers by their small names, and the body as pieces."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response
        self.status = response.status
        self.headers: dict[str, str] = {}
        for name, value in response.headers:
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1").strip())

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives. ``NetworkError`` when it breaks off before its promised end."""
        with _network_errors():
            yield from self._response.iter_stream()


class Connections:
    """Guarded connections, direct or through the proxies that the environment names."""

    def __init__(self, guard: Guard, *, timeout_s: float) -> None:
        logging.getLogger("httpcore").setLevel(logging.INFO)  # at DEBUG it writes headers, and so redirects
        self._guard = guard
        self._timeouts = dict.fromkeys(("connect", "read", "write"), timeout_s)
        self._lock = threading.Lock()
        self._pools: dict[str, httpcore.ConnectionPool] = {}
        self._ssl: ssl.SSLContext | None = None

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            self._pools.clear()

    @contextmanager
    def get(self, url: httpx.URL, headers: dict[str, str]) -> Iterator[Answer]:
        """Ask for ``url`` and yield the answer, of any status.

        Raises ``ItemError`` (private-address, bad-url, forbidden for a bad certificate) and ``NetworkError``.
        """
        sent = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "longvila-pipeline"} | headers
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path or b"/"
        )
        pool, limits = self._pool(url), {"timeout": self._timeouts}
        try:
            with (
                _network_errors(),
                pool.stream("GET", target, headers=list(sent.items()), extensions=limits) as response,
            ):
                yield Answer(response)
        except NetworkError as error:
            if _is_bad_certificate(error):
                raise ItemError(
                    "forbidden", f"{redacted(str(url))}: the server's certificate is not valid"
                ) from error
            raise

    def _pool(self, url: httpx.URL) -> httpcore.ConnectionPool:
        proxy = _proxy_for(url.scheme, url.host)
        if proxy:
            self._guard.check_before_proxy(url.host, url.port or _PORTS[url.scheme])
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = self._make_pool(proxy)
            return self._pools[proxy]

    def _make_pool(self, proxy: str) -> httpcore.ConnectionPool:
        self._ssl = self._ssl or httpx.create_ssl_context()
        if not proxy:
            return httpcore.ConnectionPool(
                ssl_context=self._ssl,
                network_backend=GuardedBackend(self._guard),
                max_connections=None,
                keepalive_expiry=10.0,
            )
        parts = httpx.URL(proxy)
        if parts.scheme not in ("http", "https"):
            raise InputError(
                f"The proxy of the environment is {parts.scheme}://. Only http(s) proxies are used here."
            )
        auth = (unquote(parts.username), unquote(parts.password)) if parts.userinfo else None
        where = httpcore.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=b"/")
        return httpcore.HTTPProxy(where, proxy_auth=auth, ssl_context=self._ssl, max_connections=None)


def parse_url(url: str) -> httpx.URL:
    """Read an HTTP address, spaces and letters of all scripts allowed. Raises ``ItemError`` bad-url."""
    try:
        parsed = httpx.URL(url)
        if parsed.scheme in _PORTS and parsed.raw_host and b"%" not in parsed.raw_host:
            return parsed
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise ItemError("bad-url", f"{redacted(url)} is not an address that can be fetched") from error
    raise ItemError("bad-url", f"{redacted(url)} is not an HTTP address")


def join_url(base: httpx.URL, location: str) -> httpx.URL:
    """Where a redirect leads. Raises ``ItemError`` bad-url."""
    try:
        return parse_url(str(base.join(location)))
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise ItemError("bad-url", f"{redacted(str(base))} redirects to what is no address") from error


def origin(url: httpx.URL) -> tuple[str, str, int]:
    """Scheme, host and port: whom a user and password are for."""
    return url.scheme, url.host, url.port or _PORTS[url.scheme]


def basic_auth(url: httpx.URL) -> dict[str, str]:
    """The header for the user and password that an address holds; nothing without them."""
    if not url.userinfo:
        return {}
    pair = f"{unquote(url.username)}:{unquote(url.password)}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _proxy_for(scheme: str, host: str) -> str:
    """The proxy that the environment names for a host; "" for a direct connection."""
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all") or ""
    if not proxy or proxy_bypass(host) or host == "localhost" or host.startswith("127.") or host == "::1":
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


@contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        raise NetworkError("nothing arrived in time") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError) as error:
        raise NetworkError(str(error).rstrip(".") or type(error).__name__) from error


def _is_bad_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
