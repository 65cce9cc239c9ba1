"""What S3 and the way to it can answer, in words that help."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from botocore.exceptions import (
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from longvila.errors import InputError, LongVilaError, MachineError, NetworkError

MISSING = {"404", "NoSuchKey", "NotFound"}
CHANGED = {"412", "PreconditionFailed"}

_DENIED = {
    "401", "403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch",
    "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed", "AllAccessDisabled",
}  # fmt: skip
_FULL = {"InsufficientStorage", "507", "XMinioStorageFull", "QuotaExceeded"}
_BUSY = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
}


def explain_s3(error: Exception, action: str, *, url: str, bucket: str) -> LongVilaError:
    """Return the error of our tree for what boto3 raised while doing ``action`` at ``url``."""
    answer = _answer_inside(error)
    if answer is not None:
        return _explain_answer(answer, f"{action} in {url}", bucket)
    what = f"Cannot {action} in {url}"
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return MachineError(f"{what}: no S3 credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
    if isinstance(error, HTTPClientError | ConnectionError):
        return NetworkError(
            f"{what}: {endpoint_name()} does not answer ({type(error).__name__}). "
            "Check the network and AWS_ENDPOINT_URL, then run it again."
        )
    if isinstance(error, ParamValidationError | ValueError):
        return InputError(
            f"{what}: {_without_user(error)}. Check the names of bucket and key, and AWS_ENDPOINT_URL."
        )
    return NetworkError(f"{what}: {type(error).__name__}: {_without_user(error)}. Run it again.")


def _explain_answer(error: ClientError, action: str, bucket: str) -> LongVilaError:
    answer = error.response.get("Error", {})
    code = str(answer.get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return InputError(
            f"Cannot {action}: there is no bucket {bucket!r} at {endpoint_name()}. Make it, or name another."
        )
    if code in MISSING:
        return InputError(f"Cannot {action}: there is no such object. Check the workspace.")
    if code in _DENIED or status in (401, 403):
        return MachineError(
            f"{endpoint_name()} refused to {action} ({code or status}). Check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, the clock, and that the key may read and write this bucket."
        )
    if code in _FULL or status == 507:
        return MachineError(f"Cannot {action}: the storage is full. Free space there.")
    if code == "InvalidRange" or status == 416:
        return InputError(f"Cannot {action}: the object is shorter. Build the data set again.")
    if code in _BUSY or status >= 500:
        return NetworkError(f"Cannot {action}: the server answered {code or status}. Run it again.")
    return InputError(f"Cannot {action}: {code} {answer.get('Message', '')}".rstrip(" .") + ".")


def _without_user(error: Exception) -> str:
    """An error's text without a user and password inside a URL."""
    return re.sub(r"//[^/@\s]+@", "//", str(error)).rstrip(".")


def _answer_inside(error: BaseException | None) -> ClientError | None:
    """Find the server's answer inside what s3transfer wrapped around it."""
    while error is not None:
        if isinstance(error, ClientError):
            return error
        error = error.__cause__ or error.__context__
    return None


def endpoint_name() -> str:
    """The server's name for messages, without a user or password that its URL may hold."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return "AWS S3"
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
