"""One object of a bucket as a local file, resumed with ranged requests for the very same version."""

from __future__ import annotations

from pathlib import Path

from botocore.exceptions import ClientError

from longvila.config.sourcing import FetchConfig
from longvila.curation.fetching.download import with_retries
from longvila.curation.fetching.partial import Limits, Partial, too_large
from longvila.errors import InputError, ItemError, MachineError, NetworkError
from longvila.storage.s3 import S3Storage


def download_object(url: str, part: Path, *, config: FetchConfig, max_size_bytes: int | None = None) -> None:
    """Bring ``s3://bucket/key`` into ``part``, going on with what is there.

    Raises ``ItemError`` (missing, forbidden, unreachable, too-large, too-slow, bad-url), and
    ``MachineError`` for the local disk and for missing credentials.
    """
    bucket, slash, key = url.partition("://")[2].partition("/")
    if not (slash and key):
        raise ItemError("bad-url", f"{url} names no object. Write s3://bucket/key")
    partial = Partial(part, url)
    limits = Limits.starting_now(
        max_size_bytes=max_size_bytes or config.max_size_bytes, total_timeout_s=config.total_timeout_s
    )
    try:
        storage = S3Storage(f"s3://{bucket}")
        with_retries(
            lambda: _attempt(storage, key, url, partial, limits),
            url=url,
            partial=partial,
            limits=limits,
            config=config,
        )
    except InputError as error:
        raise ItemError("missing", f"{url}: {error}") from error
    except MachineError as error:
        if isinstance(error.__cause__, ClientError):  # the server refuses this object; others may do
            raise ItemError("forbidden", f"{url}: {error}") from error
        raise


def _attempt(storage: S3Storage, key: str, url: str, partial: Partial, limits: Limits) -> None:
    size_bytes, etag = storage.facts(key)
    if size_bytes > limits.max_size_bytes:
        raise too_large(url, limits.max_size_bytes)
    if partial.validator != etag or partial.size > size_bytes:
        partial.begin(validator=etag, total=size_bytes)
    if partial.size < size_bytes or size_bytes == 0:
        pieces = storage.stream(key, start=partial.size, etag=etag) if size_bytes else iter(())
        partial.write(pieces, url=url, limits=limits)
    if partial.size != size_bytes:
        raise NetworkError(f"{url} ended after {partial.size:,} of {size_bytes:,} bytes")
