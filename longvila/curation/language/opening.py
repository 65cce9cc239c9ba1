"""Opens the language model that a recipe names, once per process; and looks early whether it would answer."""

from __future__ import annotations

import logging
import os
import threading

from longvila.config.language import LanguageModelConfig
from longvila.curation.language.budget import Budget
from longvila.curation.language.cache import AnswerCache
from longvila.curation.language.endpoint import EndpointModel
from longvila.curation.language.protocol import LanguageModel, Message
from longvila.curation.language.transport import Again, Refused, Transport, read_key
from longvila.curation.language.weights import model_path
from longvila.errors import ConfigError, ItemError, NetworkError
from longvila.records import content_id
from longvila.storage import Workspace

logger = logging.getLogger(__name__)
BUDGET_FILE = "language.sqlite"
_PROBE_TIMEOUT_S = 20.0
_opened: dict[str, LanguageModel] = {}  # weights, limits and pauses are a process's own
_lock = threading.Lock()


def open_model(config: LanguageModelConfig, workspace: Workspace) -> LanguageModel:
    """Return the model of ``config``; the same one to all callers in this process.

    Answers are kept in the workspace's storage, what was spent in its folder. Raises ``ConfigError`` (no
    key), ``InputError`` (no weights), ``MachineError`` (no device).
    """
    key = read_key(config) if config.kind == "endpoint" else None
    places = [str(workspace.root), workspace.storage.url]
    which = content_id(os.getpid(), config.model_dump(mode="json"), key, places)
    with _lock:
        if which not in _opened:
            _opened[which] = _open(config, key, workspace)
        return _opened[which]


def _open(config: LanguageModelConfig, key: str | None, workspace: Workspace) -> LanguageModel:
    cache = AnswerCache(workspace.storage if config.cache else None)
    if config.kind == "endpoint":
        return EndpointModel(config, key=key, cache=cache, budget=budget_of(config, workspace))
    from longvila.curation.language.local import LocalModel

    return LocalModel(config, cache=cache)


def budget_of(config: LanguageModelConfig, workspace: Workspace) -> Budget:
    """Return what the workspace spent on the model so far, and its limit."""
    return Budget(workspace.root / BUDGET_FILE, config.model, limit_usd=config.max_cost_usd)


def check_model(config: LanguageModelConfig) -> None:
    """Look whether the model is there, before hours of work need it.

    An endpoint is asked for its list of models and, where that does not name ours, for one token. Raises
    ``ConfigError`` (key, address, name), ``InputError`` (no weights), ``NetworkError`` (nobody answers).
    """
    if config.kind == "local":
        model_path(config)
        return
    hurried = config.model_copy(
        update={
            "total_timeout_s": min(config.total_timeout_s, _PROBE_TIMEOUT_S),
            "read_timeout_s": min(config.read_timeout_s, _PROBE_TIMEOUT_S),
        }
    )
    transport = Transport(hurried, key=read_key(config))
    try:
        _check_endpoint(config, transport)
    finally:
        transport.close()


def _check_endpoint(config: LanguageModelConfig, transport: Transport) -> None:
    known: list[str] | None = None
    try:
        known = _known_models(transport)
        if known is None or config.model not in known:
            transport.chat(_smallest_request(config))
    except Again as again:
        raise NetworkError(
            f"The language model's endpoint {transport.url} does not answer: {again}. Start the server, "
            "correct base_url, or run it again later."
        ) from None
    except ConfigError as error:
        shown = f" The server knows: {', '.join(sorted(known)[:20])}." if known else ""
        raise ConfigError(f"{error}{shown}") from None
    except (Refused, ItemError) as error:
        # it is there and knows the model; what it did not like is not what will be asked
        logger.info("%s answered the first question with: %s", transport.url, error)


def _known_models(transport: Transport) -> list[str] | None:
    """The models that the server lists; None where it has no list."""
    try:
        return transport.models()
    except (Refused, ItemError):
        return None
    except ConfigError as error:
        if "answered 404" in str(error) or "answered 405" in str(error):
            return None
        raise


def _smallest_request(config: LanguageModelConfig) -> dict[str, object]:
    turn = Message(role="user", text="Say yes.")
    return {"model": config.model, "messages": [turn.model_dump(exclude={"images"})], "max_tokens": 1}
