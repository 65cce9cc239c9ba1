"""What captioners and question writers ask of a language model, wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from longvila.records import Record, Usage


class Message(Record):
    """One turn that is sent. ``images`` are JPEGs, shown before the text in their order."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[bytes, ...] = ()


class Completion(Record):
    """What came back."""

    text: str
    finish: Literal["stop", "length"]
    model: str
    usage: Usage
    cached: bool = False


class LanguageModel(Protocol):
    """Anything that answers messages: an OpenAI-compatible endpoint, or a transformers model here."""

    @property
    def name(self) -> str:
        """The model's name, part of what is made with it."""
        ...

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        schema: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Completion:
        """Answer. With ``schema`` the text is JSON that fits it, or ``ItemError`` "bad-json" is raised.

        Safe to call from many threads; the model bounds how many run at once. Raises ``ItemError`` for a
        request that will never pass (refused, blocked, bad-json) and ``NetworkError`` when the endpoint does
        not answer after its retries.
        """
        ...
