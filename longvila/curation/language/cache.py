"""Answers that were given once are not asked for again: files named by the hash of all that decides them.

An entry is whole or absent, as everything in a storage; one that is damaged is asked for anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from longvila.curation.language.protocol import Completion, Message
from longvila.errors import InputError
from longvila.storage import Storage

logger = logging.getLogger(__name__)
VERSION = 1
FOLDER = "answers"


def answer_key(
    decides: Mapping[str, Any],
    messages: Sequence[Message],
    *,
    max_tokens: int,
    schema: Mapping[str, Any] | None,
    seed: int,
) -> str:
    """Return the name of an answer: 64 hex digits of what was asked, pictures by their content."""
    turns = [
        [turn.role, turn.text, [hashlib.sha256(image).hexdigest() for image in turn.images]]
        for turn in messages
    ]
    asked = [VERSION, dict(decides), turns, max_tokens, schema, seed]
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class AnswerCache:
    """Answers in a storage. Safe for many threads and processes; ``storage`` None keeps nothing."""

    def __init__(self, storage: Storage | None) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._running: dict[str, tuple[threading.Lock, int]] = {}

    def get(self, key: str) -> Completion | None:
        """Return the answer, marked as cached; None when there is none that is whole."""
        if self._storage is None:
            return None
        try:
            data = self._storage.get_bytes(_place(key))
        except InputError:
            return None
        try:
            entry = json.loads(data)
            body = entry["completion"]
            if entry["key"] != key or entry["sha256"] != _digest(body):
                raise ValueError("its checksum differs")
            return Completion.model_validate(body).model_copy(update={"cached": True})
        except (ValueError, KeyError, TypeError, ValidationError, RecursionError) as error:
            logger.warning(
                "The cached answer %s is damaged (%s): asked anew.", _place(key), type(error).__name__
            )
            return None

    def put(self, key: str, completion: Completion) -> None:
        """Keep an answer. A later one of the same key takes its place."""
        if self._storage is None:
            return
        body = completion.model_dump(mode="json")
        entry = {"key": key, "sha256": _digest(body), "completion": body}
        self._storage.put_bytes(_place(key), json.dumps(entry, ensure_ascii=False).encode())

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Let one thread at a time ask for ``key``, so that the others find the answer."""
        with self._lock:
            lock, waiting = self._running.get(key, (threading.Lock(), 0))
            self._running[key] = lock, waiting + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, waiting = self._running.pop(key)
                if waiting > 1:
                    self._running[key] = lock, waiting - 1


def _place(key: str) -> str:
    return f"{FOLDER}/{key[:2]}/{key}.json"


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
