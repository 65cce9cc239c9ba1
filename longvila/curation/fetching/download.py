"""One download over HTTP: limited in size, time and redirects, resumed where it broke off, never trusted.

A download grows in a ``.part`` file beside which a small JSON keeps the server's ETag. After a break, in this
process or a later one, only the missing bytes are asked for, on the condition that the file has not changed.
"""

from __future__ import annotations

import email.utils
import logging
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

from longvila.config.addresses import redacted
from longvila.config.sourcing import FetchConfig
from longvila.curation.fetching.connections import (
    Answer,
    Connections,
    basic_auth,
    join_url,
    origin,
    parse_url,
)
from longvila.curation.fetching.guard import Guard
from longvila.curation.fetching.pace import Pacer
from longvila.curation.fetching.partial import Limits, Partial, too_large
from longvila.errors import ItemError, NetworkError

logger = logging.getLogger(__name__)

_MAX_BACKOFF_S = 60.0
_REDIRECTS = (301, 302, 303, 307, 308)
_RETRIED = (408, 425, 429)
_PACKED = ("gzip", "x-gzip", "deflate")
_REFUSALS = {
    401: ("forbidden", "the server asks for credentials (401)"),
    403: ("forbidden", "the server forbids it (403)"),
    404: ("gone", "there is nothing at this address (404)"),
    407: ("forbidden", "a proxy asks for credentials (407)"),
    410: ("gone", "it was removed for good (410)"),
    451: ("forbidden", "it is withheld for legal reasons (451)"),
}


class BusyError(NetworkError):
    """A server that says when to come again, in seconds."""

    def __init__(self, words: str, retry_after_s: float | None) -> None:
        super().__init__(words)
        self.retry_after_s = retry_after_s


class Downloader:
    """Downloads with one connection pool and one pace per host. Safe to share among threads.

    Downloaders that are given the same ``pace_folder``, in whatever process, keep one pace together.
    """

    def __init__(self, config: FetchConfig, *, pace_folder: Path | None = None) -> None:
        self.config = config
        self.guard = Guard(config.allow_private_hosts)
        self.pacer = Pacer(config.requests_per_host_s, host_rates=config.host_rates, folder=pace_folder)
        self._connections = Connections(self.guard, timeout_s=config.timeout_s)

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *_: object) -> None:
        self._connections.close()

    def download(self, url: str, part: Path, *, max_size_bytes: int | None = None) -> None:
        """Bring the whole of ``url`` into ``part``, going on with what is there.

        Raises ``ItemError`` (gone, forbidden, refused, unreachable, too-large, too-slow, too-many-redirects,
        private-address, bad-url) and ``MachineError`` for the local disk.
        """
        partial = Partial(part, url)
        limits = Limits.starting_now(
            max_size_bytes=max_size_bytes or self.config.max_size_bytes,
            total_timeout_s=self.config.total_timeout_s,
        )
        with_retries(
            lambda: self._attempt(url, partial, limits),
            url=url,
            partial=partial,
            limits=limits,
            config=self.config,
        )

    def _attempt(self, url: str, partial: Partial, limits: Limits) -> None:
        while not partial.is_whole:
            had = partial.size
            self._follow(url, partial, limits)
            if partial.total is None:
                partial.learn_total(partial.size)
            elif partial.size <= had:
                raise NetworkError("the server sent less than the whole")
        partial.unpack(max_size_bytes=limits.max_size_bytes, url=url)

    def _follow(self, url: str, partial: Partial, limits: Limits) -> None:
        current = first = parse_url(url)
        headers = _range_headers(partial)
        for _ in range(self.config.max_redirects + 1):
            self._wait_for_turn(current.host, origin(current)[2], url, limits)
            auth = basic_auth(first) if origin(current) == origin(first) else {}
            with self._connections.get(current, headers | auth) as answer:
                if answer.status in _REDIRECTS and answer.headers.get("location"):
                    current = join_url(current, answer.headers["location"])
                    continue
                self._receive(answer, current.host, origin(current)[2], url, partial, limits)
                return
        raise ItemError(
            "too-many-redirects", f"{redacted(url)} redirects more than {self.config.max_redirects} times"
        )

    def _wait_for_turn(self, host: str, port: int, url: str, limits: Limits) -> None:
        wait_s = self.pacer.turn(host, port)
        if time.monotonic() + wait_s > limits.deadline:
            raise limits.too_slow(url)
        time.sleep(wait_s)

    def _receive(
        self, answer: Answer, host: str, port: int, url: str, partial: Partial, limits: Limits
    ) -> None:
        status = answer.status
        if status in _RETRIED or status >= 500:
            retry_after_s = _retry_after_s(answer)
            if retry_after_s is not None:
                self.pacer.hold(host, port, min(retry_after_s, self.config.max_retry_after_s))
            raise BusyError(f"the server answered {status}", retry_after_s)
        if status == 416:
            _end_of_range(answer, partial)
            return
        if status not in (200, 206):
            reason, words = _REFUSALS.get(status, ("refused", f"the server answered {status}"))
            raise ItemError(reason, f"{redacted(url)}: {words}")
        promised = _begin_or_go_on(answer, url, partial)
        if promised is not None and promised > limits.max_size_bytes:
            partial.forget()
            raise too_large(url, limits.max_size_bytes)
        partial.write(answer.pieces(), url=url, limits=limits)
        if partial.total is not None and partial.size > partial.total:
            partial.forget()
            raise NetworkError("the server sent more bytes than it said")


def with_retries(
    attempt: Callable[[], None], *, url: str, partial: Partial, limits: Limits, config: FetchConfig
) -> None:
    """Call ``attempt`` until it passes; give up after so many in a row that brought no new byte.

    Raises ``ItemError`` unreachable, or too-slow when the next attempt would come after the deadline.
    """
    failures, most = 0, partial.size
    while True:
        try:
            attempt()
            return
        except NetworkError as error:
            if partial.size > most:
                failures, most = 0, partial.size
            failures += 1
            wait_s = _wait_s(error, failures, url, config)
            if failures >= config.attempts or wait_s is None:
                raise ItemError(
                    "unreachable", f"{redacted(url)}: {error} ({failures} attempts). Run it again later."
                ) from error
        if time.monotonic() + wait_s > limits.deadline:
            raise limits.too_slow(url)
        logger.debug("%s: attempt %d in %.1f s", redacted(url), failures + 1, wait_s)
        time.sleep(wait_s)


def _wait_s(error: NetworkError, failures: int, url: str, config: FetchConfig) -> float | None:
    """How long to wait before the next attempt; None when the server asks for more patience than allowed."""
    chance = random.Random(f"{url} {os.getpid()} {failures}").random()
    wait_s = min(config.backoff_s * 2 ** (failures - 1), _MAX_BACKOFF_S) * (0.5 + chance)
    asked_s = getattr(error, "retry_after_s", None)
    if asked_s is None:
        return wait_s
    return None if asked_s > config.max_retry_after_s else max(asked_s, wait_s)


def _range_headers(partial: Partial) -> dict[str, str]:
    if not (partial.size and partial.validator):
        return {}
    return {"Range": f"bytes={partial.size}-", "If-Range": partial.validator}


def _begin_or_go_on(answer: Answer, url: str, partial: Partial) -> int | None:
    """Make ready for the body of a 200 or 206; return the whole size when the server says it."""
    if answer.status == 200:
        length = answer.headers.get("content-length", "")
        is_known = length.isdecimal() and "transfer-encoding" not in answer.headers
        total = int(length) if is_known else None
        partial.begin(validator=_validator(answer), total=total, encoding=_encoding(answer, url))
        return total
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("content-range", ""))
    total = int(found[3]) if found and found[3] != "*" else None
    same = (
        found is not None
        and int(found[1]) == partial.size
        and partial.total in (None, total or partial.total)
    )
    if not same or _is_other_version(answer, partial):
        partial.forget()
        raise NetworkError("the server sent other bytes than were asked for")
    if partial.size == 0:
        partial.begin(validator=_validator(answer), total=total, encoding=_encoding(answer, url))
    partial.learn_total(total)
    return total


def _end_of_range(answer: Answer, partial: Partial) -> None:
    """A 416: there is nothing behind what we hold, so that is all of it, or of another file."""
    found = re.fullmatch(r"bytes \*/(\d+)", answer.headers.get("content-range", ""))
    if partial.size and found and int(found[1]) == partial.size and not _is_other_version(answer, partial):
        partial.learn_total(partial.size)
        return
    partial.forget()
    raise NetworkError("the file changed while it was fetched")


def _is_other_version(answer: Answer, partial: Partial) -> bool:
    etag = answer.headers.get("etag", "")
    is_etag = partial.validator.startswith('"')
    return bool(etag) and is_etag and etag != partial.validator


def _validator(answer: Answer) -> str:
    """What tells this version from every other: a strong ETag, or a date that is not too young for that."""
    etag = answer.headers.get("etag", "")
    if etag.startswith('"'):
        return etag
    changed, now = (_date_s(answer.headers.get(name, "")) for name in ("last-modified", "date"))
    if changed is None or now is None or now - changed < 60.0:
        return ""
    return answer.headers["last-modified"]


def _encoding(answer: Answer, url: str) -> str:
    encoding = answer.headers.get("content-encoding", "").lower().strip()
    if encoding in ("", "identity"):
        return ""
    if encoding not in _PACKED:
        raise ItemError(
            "refused", f"{redacted(url)}: the server packs it as {encoding[:20]!r}, though asked not to"
        )
    return encoding


def _retry_after_s(answer: Answer) -> float | None:
    text = answer.headers.get("retry-after", "")
    if text.isdecimal():
        return float(text[:9])
    at_s = _date_s(text)
    return None if at_s is None else max(0.0, at_s - time.time())


def _date_s(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
