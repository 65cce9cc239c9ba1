"""An S3 prefix as storage, through boto3 and s3transfer."""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3.session
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from longvila.errors import InputError, NetworkError
from longvila.storage.base import check_key
from longvila.storage.files import atomic_path
from longvila.storage.s3_errors import CHANGED, MISSING, explain_s3

_PART_BYTES = 16 * 2**20


class S3Storage:
    """Objects are those of one bucket whose names start with one prefix.

    Safe to use from many threads, after a fork, and to pickle: each process makes its own client.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.bucket = parts.netloc
        self.prefix = parts.path.strip("/")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", self.bucket):
            raise InputError(
                f"{self.bucket!r} in {url!r} cannot be a bucket: a name has 3 to 63 small letters, digits, "
                "dots and hyphens. Write s3://bucket/prefix."
            )
        if self.prefix:
            check_key(self.prefix)
        self.url = f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")
        self._clients: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._transfer = TransferConfig(
            multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=8
        )

    def __repr__(self) -> str:
        return f"S3Storage({self.url!r})"

    def __reduce__(self) -> tuple[type[S3Storage], tuple[str]]:
        return S3Storage, (self.url,)

    @property
    def _client(self) -> Any:
        pid = os.getpid()
        with self._lock:
            if pid not in self._clients:
                self._clients = {pid: _make_client()}
            return self._clients[pid]

    def _name(self, key: str) -> str:
        check_key(key)
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError, Boto3Error, ValueError) as error:
            raise explain_s3(error, action, url=self.url, bucket=self.bucket) from error

    def _head(self, key: str) -> dict[str, Any] | None:
        """Return the object's headers, None when it is missing; a missing bucket is an error."""
        with self._errors(f"look up {key!r}"):
            try:
                return self._client.head_object(Bucket=self.bucket, Key=self._name(key))
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") not in MISSING:
                    raise
        self._check_bucket()
        return None

    def _check_bucket(self) -> None:
        with self._errors(f"look up bucket {self.bucket!r}"):
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in MISSING:
                    error.response["Error"]["Code"] = "NoSuchBucket"  # a HEAD answer has no body to say so
                raise

    def _headers(self, key: str) -> dict[str, Any]:
        headers = self._head(key)
        if headers is None:
            raise InputError(
                f"There is no {key!r} in {self.url}. Check the workspace, or run the step that makes it."
            )
        return headers

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file, in parts when it is large; the object appears when all of it has arrived."""
        if not path.is_file():
            raise InputError(f"Cannot upload {path}: there is no such file. Check the path.")
        with self._errors(f"upload {key!r}"):
            self._client.upload_file(str(path), self.bucket, self._name(key), Config=self._transfer)

    def put_bytes(self, key: str, data: bytes) -> None:
        """Upload ``data``."""
        with self._errors(f"write {key!r}"):
            self._client.put_object(Bucket=self.bucket, Key=self._name(key), Body=data)

    def get_file(self, key: str, path: Path) -> None:
        """Download the object."""
        self._headers(key)
        with atomic_path(path) as part, self._errors(f"download {key!r}"):
            self._client.download_file(self.bucket, self._name(key), str(part), Config=self._transfer)

    def get_bytes(self, key: str) -> bytes:
        """Read the whole object."""
        with self._errors(f"read {key!r}"):
            return self._client.get_object(Bucket=self.bucket, Key=self._name(key))["Body"].read()

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Read the bytes ``[start, stop)`` with one ranged request."""
        if stop <= start:
            return b""
        with self._errors(f"read {key!r}"):
            answer = self._client.get_object(
                Bucket=self.bucket, Key=self._name(key), Range=f"bytes={start}-{stop - 1}"
            )
            data: bytes = answer["Body"].read()
        if len(data) != stop - start:
            raise InputError(
                f"{key!r} in {self.url} ends before byte {stop}: it is truncated or its index is of another "
                "build. Build the data set again."
            )
        return data

    def exists(self, key: str) -> bool:
        """Say whether the object is there."""
        return self._head(key) is not None

    def size(self, key: str) -> int:
        """Return the object's size in bytes."""
        return int(self._headers(key)["ContentLength"])

    def stream(self, key: str, *, start: int, etag: str, chunk_bytes: int = 1 << 18) -> Iterator[bytes]:
        """Yield the bytes from ``start`` on, with one ranged request for this very version of the object.

        Raises ``NetworkError`` when the object is of another ETag by now, or the connection breaks.
        """
        with self._errors(f"read {key!r}"):
            try:
                answer = self._client.get_object(
                    Bucket=self.bucket, Key=self._name(key), Range=f"bytes={start}-", IfMatch=f'"{etag}"'
                )
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in CHANGED:
                    raise NetworkError(f"{key!r} in {self.url} changed while it was read") from error
                raise
            with closing(answer["Body"]) as body:
                yield from body.iter_chunks(chunk_bytes)

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield (key, size in bytes) of every object that starts with ``prefix``, in order of keys."""
        start = f"{self.prefix}/{prefix}" if self.prefix else prefix
        skip = len(self.prefix) + 1 if self.prefix else 0
        with self._errors(f"list {prefix!r}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
            for page in pages:
                for item in page.get("Contents", ()):
                    if not item["Key"].endswith("/"):
                        yield item["Key"][skip:], int(item["Size"])

    def fingerprint(self, key: str) -> str:
        """Return the object's ETag."""
        return self.facts(key)[1]

    def facts(self, key: str) -> tuple[int, str]:
        """Return the object's size in bytes and its ETag, both of one version."""
        headers = self._headers(key)
        return int(headers["ContentLength"]), str(headers["ETag"]).strip('"')

    def list(self, prefix: str = "") -> list[str]:
        """Return the sorted keys that start with ``prefix``."""
        return sorted(key for key, _ in self.sizes(prefix))

    def local_path(self, key: str) -> Path | None:
        """Return None: nothing is local."""
        check_key(key)

    def delete(self, key: str) -> None:
        """Remove the object."""
        with self._errors(f"delete {key!r}"):
            self._client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def check_writable(self) -> None:
        """Write and remove a small object."""
        self._check_bucket()
        probe = f"probe-{secrets.token_hex(4)}"
        self.put_bytes(probe, b"probe")
        self.delete(probe)


def _make_client() -> Any:
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 5},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        signature_version="s3v4",
        s3={"addressing_style": "path" if os.environ.get("AWS_ENDPOINT_URL") else "auto"},
    )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return boto3.session.Session().client("s3", region_name=region, config=config)
