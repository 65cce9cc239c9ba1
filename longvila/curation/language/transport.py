"""One request to one address, limited in size and time, and what each kind of failure means.

Only the configured address is contacted: redirects are not followed. The key goes into a header and nowhere
else; it is cut out of whatever a server says before anybody sees that.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from longvila.config.language import LanguageModelConfig
from longvila.curation.language.wire import error_text, is_about_content
from longvila.errors import ConfigError, ItemError

MAX_ANSWER_BYTES = 8 * 2**20
_SECRET_CHARACTERS = 8  # a shorter key, as vLLM's "EMPTY", is no secret but may be a word of an answer
_AGAIN = (408, 409, 425, 429)
_SPENT_WORDS = ("insufficient_quota", "exceeded your current quota", "billing", "credit")


class Again(Exception):
    """The same request may be answered later. ``wait_s``: what the server asks for; None: nothing."""

    def __init__(self, why: str, *, wait_s: float | None = None, limited: bool = False) -> None:
        super().__init__(why)
        self.wait_s = wait_s
        self.limited = limited


class Refused(Exception):
    """The server will not answer this request."""


class Transport:
    """Talks to the endpoint. Safe to share among threads."""

    def __init__(self, config: LanguageModelConfig, *, key: str | None) -> None:
        assert config.base_url is not None
        self.url = config.base_url.rstrip("/")
        self._config = config
        self._key = key
        self._client = httpx.Client(
            timeout=httpx.Timeout(config.read_timeout_s, connect=config.connect_timeout_s, pool=None),
            follow_redirects=False,
            limits=httpx.Limits(max_connections=config.requests_at_once + 1),
            headers={"User-Agent": "longvila-pipeline"} | ({"Authorization": f"Bearer {key}"} if key else {}),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def chat(self, body: dict[str, Any]) -> Any:
        """Return the JSON of one chat completion.

        Raises ``Again``, ``Refused``, ``ItemError`` (blocked, refused) and ``ConfigError`` for what the user
        has to mend: the key, the address, the model's name, the account.
        """
        return self._exchange("POST", "/chat/completions", body)

    def models(self) -> list[str]:
        """Return the names of the models that the server lists. Raises as ``chat``."""
        payload = self._exchange("GET", "/models", None)
        listed = payload.get("data") if isinstance(payload, dict) else None
        entries = listed if isinstance(listed, list) else []
        return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        deadline = time.monotonic() + self._config.total_timeout_s
        try:
            with self._client.stream(method, self.url + path, json=body) as response:
                data = self._receive(response, deadline)
        except httpx.TransportError as error:
            raise self._broken(error) from None
        except httpx.DecodingError as error:
            raise Again(f"the answer cannot be unpacked ({type(error).__name__})") from None
        if response.status_code != 200:
            raise self._failure(response.status_code, error_text(data), _retry_after(response))
        try:
            payload = json.loads(data)
        except (ValueError, RecursionError):
            raise Again("the answer is not JSON; is base_url right?") from None
        if isinstance(payload, dict) and payload.get("error"):
            raise self._failure(_code_of(payload["error"]), error_text(data), None)
        return payload

    def _receive(self, response: httpx.Response, deadline: float) -> bytes:
        pieces, size = [], 0
        for piece in response.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                raise Again(f"the answer is larger than {MAX_ANSWER_BYTES:,} bytes")
            if time.monotonic() > deadline:
                raise Again(f"the answer was not whole after {self._config.total_timeout_s:g} s")
        return self._without_key(b"".join(pieces))

    def _failure(self, status: int, said: str, wait_s: float | None) -> Exception:
        """The error for a status that is no success."""
        where = f"{self.url} answered {status}: {said}"
        if status in (402, 429) and (status == 402 or any(word in said.lower() for word in _SPENT_WORDS)):
            return ConfigError(f"{where}. The account has no credit left; top it up and start again.")
        if status in _AGAIN or status >= 500:
            return Again(f"the server answered {status}: {said}", wait_s=wait_s, limited=status == 429)
        if is_about_content(said):
            return ItemError("blocked", f"the server answered {status}: {said}")
        mend = self._mend(status)
        if mend:
            return ConfigError(f"{where}. {mend}")
        if status == 413:
            return ItemError("refused", "the request is too large for the server (413). Send fewer frames")
        return Refused(f"the server answered {status}: {said}")

    def _mend(self, status: int) -> str | None:
        config = self._config
        if status in (401, 403, 407):
            if config.api_key_env is None:
                return "It wants a key: put it into an environment variable and name that in api_key_env."
            return f"The key in {config.api_key_env} is wrong, or may not use the model {config.model}."
        if status in (404, 405, 410):
            return f"There is no such address, or no model {config.model!r}. Correct base_url or model."
        if 300 <= status < 400:
            return "Redirects are not followed. Give the final address as base_url."
        return None

    def _broken(self, error: httpx.TransportError) -> Exception:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return ConfigError(
                    f"{self.url}: its certificate is not valid ({cause.verify_message}). Correct base_url, "
                    "or name your authority's certificates in SSL_CERT_FILE."
                )
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx.ProxyError):
            return Again(f"the proxy does not let it through ({_words(error)})")
        if isinstance(error, httpx.ConnectTimeout):
            return Again(f"no connection within {self._config.connect_timeout_s:g} s")
        if isinstance(error, httpx.TimeoutException):
            return Again(f"nothing arrived for {self._config.read_timeout_s:g} s")
        return Again(f"the connection broke ({_words(error)})")

    def _without_key(self, data: bytes) -> bytes:
        secret = self._key is not None and len(self._key) >= _SECRET_CHARACTERS
        return data.replace(self._key.encode(), b"[key]") if self._key and secret else data


def read_key(config: LanguageModelConfig) -> str | None:
    """Return the key from the environment. Raises ``ConfigError``, which never shows it."""
    name = config.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"The environment variable {name}, which holds the key of {config.base_url}, is not set or "
            f"empty. Set it where the flow runs: export {name}=…"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"The environment variable {name} is no key: it holds spaces, line breaks or letters beyond "
            "ASCII. Set it to the key alone."
        )
    return key


def _words(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait: as a number, a date, or OpenAI's milliseconds."""
    try:
        if "retry-after-ms" in response.headers:
            return max(0.0, float(response.headers["retry-after-ms"]) / 1000.0)
        said = response.headers.get("retry-after")
        if said is None:
            return None
        if said.strip().replace(".", "", 1).isdigit():
            return float(said)
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _code_of(error: Any) -> int:
    """The HTTP status in an error that came with status 200; 500 where there is none."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 300 <= code < 600 else 500
