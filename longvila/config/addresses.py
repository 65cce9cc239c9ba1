"""Addresses of sources: relative or not, fit for an id, and fit to be read by others.

An address can hold a secret: a user and password before the host, or a key or signature in its query. What is
logged, or written where others read, goes through ``redacted`` or ``public``.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode

FETCHED_SCHEMES = ("http", "https", "s3", "file")

_OPEN_PARAMETERS = {"v": re.compile(r"[A-Za-z0-9_-]{1,16}")}  # the number of a video, as YouTube has it
_SIGNING = re.compile(
    r"(?i)(x-(amz|goog|oss|cos)-.*|awsaccesskeyid|googleaccessid|key-pair-id|policy|expires|sig|signature|"
    r"hmac|hdnea|token|access_token)"
)
_AZURE = re.compile(r"(?i)s[etprv]|spr|sip|skoid|sktid|skt|ske|sks|skv|sdd|ses")  # beside a sig only


def scheme_of(url: str) -> str:
    """The scheme in small letters; "" for a path."""
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator and scheme.isascii() and scheme.isalnum() else ""


def is_relative(url: str) -> bool:
    """Whether an address is a path relative to its source list."""
    return not scheme_of(url) and not Path(url).is_absolute()


def resolve_url(url: str, base: str | Path) -> str:
    """Put a relative path below ``base`` (an address, or the folder of the list); others stay."""
    if not is_relative(url):
        return url
    if isinstance(base, Path) or not scheme_of(base):
        return str(Path(base) / url)
    return f"{base.rstrip('/')}/{quote(url)}"


def path_of(url: str) -> str:
    """The path at an address: of a file on this machine, on a server or in a bucket."""
    scheme = scheme_of(url)
    if not scheme:
        return url
    rest = url.partition("://")[2]
    if scheme == "s3":  # a key is taken as it is written
        return "/" + rest.partition("/")[2]
    return unquote("/" + re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")[2])


def stem_of(url: str) -> str:
    """The name of the file at an address, without its ending, in letters that an id may have."""
    scheme = scheme_of(url)
    if scheme in ("http", "https"):
        path = re.split(r"[?#]", url.partition("://")[2], maxsplit=1)[0].partition("/")[2]
    else:
        path = path_of(url)
    stem = posixpath.splitext(path.rstrip("/").rpartition("/")[2])[0]
    return re.sub(r"[^A-Za-z0-9]", "-", stem)[:80] or "source"


def redacted(url: str) -> str:
    """An address without its user, password, query and fragment, which may hold secrets."""
    if not (scheme := scheme_of(url)):
        return url
    rest = url.partition("://")[2]
    if scheme in ("s3", "file"):
        return f"{scheme}://{rest}"
    main, query = _split(rest)
    host, slash, path = main.partition("/")
    if re.search(r":[^\]]*[^0-9\]]", host.rpartition("@")[2]):  # no port: a password that holds a slash
        host, slash, path = main.rpartition("@")[2].partition("/")
    kept = [(name, value) for name, value in _parameters(query) if _is_open(name, value)]
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{'?' if kept else ''}{urlencode(kept)}"


def canonical(url: str) -> str:
    """An address without what changes while it leads to the same file: user, signature, fragment."""
    if scheme_of(url) not in ("http", "https"):
        return redacted(url)
    main, query = _split(url)
    pairs = _parameters(query)
    is_azure = any(name.lower() == "sig" for name, _ in pairs)
    kept = [
        (name, value)
        for name, value in pairs
        if not (_SIGNING.fullmatch(name) or (is_azure and _AZURE.fullmatch(name)))
    ]
    return f"{redacted(main)}?{urlencode(kept)}" if kept else redacted(main)


def public(url: str) -> str:
    """What may be written where others read: the address without what may be secret, and still one of a kind.

    What is left out leaves a hash of the rest behind, which does not change when an address is only signed
    anew.
    """
    shown = redacted(url)
    if scheme_of(url) not in ("http", "https") or shown == _without_fragment(url):
        return shown
    return f"{shown}#{hashlib.sha256(canonical(url).encode('utf-8', 'replace')).hexdigest()[:8]}"


def scrubbed(text: str, url: str) -> str:
    """A text of others about an address, without the secret parts of it and the queries of any address."""
    text = re.sub(r"[a-z0-9]+://[^\s'\"<>]+", lambda found: redacted(found[0]), text)
    main, query = _split(url)
    user = main.partition("://")[2].partition("/")[0].rpartition("@")[0]
    parts = {query, url.partition("#")[2], user, *user.split(":"), *query.split("&")}
    parts |= {value for _, value in _parameters(query)}
    parts |= {unquote(part) for part in parts}
    for part in sorted((part for part in parts if len(part) > 3), key=len, reverse=True):
        if part not in redacted(url):
            text = text.replace(part, "…")
    return text


def is_partial(url: str) -> bool:
    """Whether an address is one that ``public`` took something out of."""
    return scheme_of(url) in ("http", "https") and re.search(r"#[0-9a-f]{8}$", url) is not None


def _without_fragment(url: str) -> str:
    scheme, separator, rest = url.partition("#")[0].partition("://")
    return f"{scheme.lower()}{separator}{rest}"


def _split(url: str) -> tuple[str, str]:
    """What is before the query, and the query; the fragment, which no server sees, is dropped."""
    main, _, query = url.partition("#")[0].partition("?")
    return main, query


def _parameters(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True, errors="replace") if query else []


def _is_open(name: str, value: str) -> bool:
    return name in _OPEN_PARAMETERS and bool(_OPEN_PARAMETERS[name].fullmatch(value))
