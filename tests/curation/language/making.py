"""Models against a server on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longvila.config.language import LanguageModelConfig
from longvila.curation.language.budget import Budget
from longvila.curation.language.cache import AnswerCache
from longvila.curation.language.endpoint import EndpointModel
from longvila.curation.language.protocol import Message
from longvila.storage import open_storage
from tests.curation.language.serving import ChatServer

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["answer"],
    "properties": {"answer": {"type": "integer"}},
}


def config_for(server: ChatServer | str, **changed: Any) -> LanguageModelConfig:
    """Settings with short waits."""
    url = server if isinstance(server, str) else server.url
    plain = {"model": "tiny", "base_url": url, "backoff_s": 0.01, "read_timeout_s": 5.0, "attempts": 4}
    return LanguageModelConfig.model_validate({**plain, **changed})


def endpoint(
    server: ChatServer | str, folder: Path, *, key: str | None = None, **changed: Any
) -> EndpointModel:
    """A model whose answers are kept below ``folder``."""
    config = config_for(server, **changed)
    return EndpointModel(
        config,
        key=key,
        cache=AnswerCache(open_storage(str(folder)) if config.cache else None),
        budget=Budget(folder / "language.sqlite", config.model, limit_usd=config.max_cost_usd),
    )


def asking(text: str = "What is there?", *images: bytes) -> list[Message]:
    return [Message(role="system", text="Be short."), Message(role="user", text=text, images=images)]
