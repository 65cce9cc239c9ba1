"""From an address to the storage behind it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from longvila.errors import InputError
from longvila.storage.base import Storage
from longvila.storage.local import LocalStorage


def open_storage(url: str | Path) -> Storage:
    """Open a folder (a path or ``file://``) or an S3 prefix (``s3://bucket/prefix``).

    S3 reads its endpoint, keys and region from the environment: ``AWS_ENDPOINT_URL``,
    ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION`` or ``AWS_DEFAULT_REGION``. Nothing
    is contacted or made here; see ``Storage.check_writable``.
    """
    text = str(url)
    scheme, separator, _ = text.partition("://")
    if separator and scheme == "s3":
        from longvila.storage.s3 import S3Storage  # boto3 is loaded only where it is used

        return S3Storage(text)
    if separator and scheme != "file":
        raise InputError(
            f"storage {text!r} has the unknown scheme {scheme!r}. Give a folder, file:///path or s3://bucket/prefix."
        )
    return LocalStorage(Path(unquote(urlsplit(text).path)) if separator else Path(text))
