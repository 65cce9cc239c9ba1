"""Who may be talked to: never a private network, unless it is named.

The check is part of connecting: a name is resolved once, every address it has is looked at, and the
connection goes to one of these very addresses, so that a name cannot lead elsewhere the second time (DNS
rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from longvila.errors import ItemError, NetworkError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_V4_COMPATIBLE = ipaddress.ip_network("::/96")


class Guard:
    """Knows which private hosts are allowed: names, addresses, or networks like ``10.0.0.0/8``."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._names = {name.lower().strip("[]").rstrip(".") for name in allowed}
        self._networks = [network for name in self._names if (network := _network(name)) is not None]

    def addresses(self, host: str, port: int) -> list[str]:
        """Resolve ``host``. Raises ``ItemError`` private-address, ``NetworkError`` when it is not found."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NetworkError(f"the host {host} was not found ({error.strerror})") from error
        except (UnicodeError, OverflowError) as error:
            raise ItemError("bad-url", f"{host!r} is not the name of a host") from error
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if not self._is_named(host):
            for address in addresses:
                self._refuse_private(address, host)
        return addresses

    def check_before_proxy(self, host: str, port: int) -> None:
        """Refuse what is private as far as it can be known here: behind a proxy the proxy resolves names."""
        try:
            self.addresses(host, port)
        except NetworkError:
            return

    def _is_named(self, host: str) -> bool:
        return host.lower().strip("[]").rstrip(".") in self._names

    def _refuse_private(self, address: str, host: str) -> None:
        ip = _innermost(ipaddress.ip_address(address.partition("%")[0]))
        if (ip.is_global and not ip.is_multicast) or any(ip in network for network in self._networks):
            return
        raise ItemError(
            "private-address",
            f"{host} is {address}, in a private network. If meant, name it in fetch.allow_private_hosts.",
        )


class GuardedBackend(httpcore.NetworkBackend):
    """Connects for httpcore, to addresses that the guard has seen."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of ``host`` that answers."""
        return self._first(self._guard.addresses(host, port), port, timeout, local_address, socket_options)

    def _first(self, addresses: Sequence[str], port: int, timeout: float | None, *rest: Any) -> Any:
        for number, address in enumerate(addresses, start=1):
            try:
                return self._plain.connect_tcp(address, port, timeout, *rest)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise httpcore.ConnectError("the host has no address")


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(name, strict=False)
    except ValueError:
        return None


def _innermost(ip: _Address) -> _Address:
    """The IPv4 address inside an IPv6 one that only wraps it: mapped, compatible, NAT64, 6to4, Teredo."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip.ipv4_mapped or ip.sixtofour:
        return ip.ipv4_mapped or ip.sixtofour or ip
    if ip.teredo:
        return ip.teredo[1]
    if ip in _NAT64 or (ip in _V4_COMPATIBLE and int(ip) > 1):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip
