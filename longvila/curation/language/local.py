"""A language model in this process: any transformers checkpoint or GGUF file, with or without eyes.

Requests of many threads are generated in batches. Nothing is fetched: the files have to be there.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longvila.config.language import LanguageModelConfig
from longvila.curation.language.batching import Batcher
from longvila.curation.language.cache import AnswerCache, answer_key
from longvila.curation.language.protocol import Completion, Message
from longvila.curation.language.schema import Schema, complete_json, with_schema
from longvila.curation.language.weights import Loaded, fingerprint, load_weights, model_path
from longvila.curation.language.wire import clean
from longvila.errors import ConfigError, ItemError, MachineError
from longvila.records import Usage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Request:
    turns: list[dict[str, Any]]  # as a chat template takes them, pictures decoded
    has_images: bool
    max_tokens: int
    seed: int


class LocalModel:
    """Answers with a model that is loaded once; see ``LanguageModel`` for the promises."""

    def __init__(self, config: LanguageModelConfig, *, cache: AnswerCache) -> None:
        """Find the model; the first new question loads it. Raises ``InputError`` when it is not there."""
        self._config = config
        self._cache = cache
        self._fingerprint = fingerprint(model_path(config))
        self._weights: Loaded | None = None
        self._loading = threading.Lock()
        self._batcher: Batcher[_Request, Completion] = Batcher(
            self._run, kind=self._kind, size=config.batch_size
        )

    @property
    def name(self) -> str:
        """The checkpoint's folder or file, without the path to it."""
        return Path(self._config.model).name

    def load(self) -> Loaded:
        """Load the weights once. Raises ``InputError``, ``ConfigError`` (no chat), ``MachineError``."""
        with self._loading:
            if self._weights is None:
                self._weights = load_weights(self._config)
            return self._weights

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        schema: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Completion:
        """Answer; see ``LanguageModel.complete``. ``ConfigError`` for pictures that it cannot see."""
        if schema is None:
            return self._answer(messages, max_tokens, None, seed)
        return complete_json(lambda turns: self._answer(turns, max_tokens, schema, seed), messages, schema)

    def _answer(
        self, messages: Sequence[Message], max_tokens: int, schema: Schema | None, seed: int
    ) -> Completion:
        decides = {**self._config.decides_answers(), "model": self._fingerprint}
        key = answer_key(decides, messages, max_tokens=max_tokens, schema=schema, seed=seed)
        with self._cache.alone(key):
            found = self._cache.get(key)
            if found is None:
                asked = messages if schema is None else with_schema(messages, schema)
                found = self._batcher.submit(self._request(asked, max_tokens, seed))
                self._cache.put(key, found)
        return found

    def _request(self, messages: Sequence[Message], max_tokens: int, seed: int) -> _Request:
        sees = self.load().processor is not None
        if not sees and any(turn.images for turn in messages):
            raise ConfigError(
                f"The model {self.name} cannot see pictures. Name a vision-language model, or an endpoint."
            )
        turns = [{"role": turn.role, "content": _content(turn) if sees else turn.text} for turn in messages]
        return _Request(turns, any(turn.images for turn in messages), max_tokens, seed)

    def _kind(self, request: _Request) -> tuple[object, ...]:
        """What requests must share to be generated together; drawn ones share nothing but their seed."""
        alone = id(request) if self._config.temperature > 0 else 0
        return request.max_tokens, request.has_images, alone

    def _run(self, batch: list[_Request]) -> list[Completion | ItemError]:
        try:
            return self._generate(batch)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            if len(batch) == 1:
                raise MachineError(
                    f"One request does not fit into the memory of {self.load().device} with {self.name}. "
                    "Send fewer frames, lower max_tokens, or take a smaller model."
                ) from error
            logger.warning("%d requests together do not fit into memory: halved", len(batch))
            half = len(batch) // 2
        return self._run(batch[:half]) + self._run(batch[half:])

    @torch.inference_mode()
    def _generate(self, batch: list[_Request]) -> list[Completion | ItemError]:
        loaded, first = self.load(), batch[0]
        inputs = _inputs(loaded, [request.turns for request in batch])
        num_in = inputs["attention_mask"].sum(dim=1).tolist()
        width = inputs["input_ids"].shape[1]
        if loaded.max_context and width + first.max_tokens > loaded.max_context:
            if len(batch) > 1:
                return [done for request in batch for done in self._generate([request])]
            room = f"more than the {loaded.max_context} that {self.name} can hold"
            return [ItemError("refused", f"{width} tokens and an answer of {first.max_tokens} are {room}")]
        draw = self._config.temperature > 0
        with torch.random.fork_rng() if draw else nullcontext():
            if draw:
                torch.manual_seed(first.seed)
            rows = loaded.model.generate(
                **inputs,
                max_new_tokens=first.max_tokens,
                do_sample=draw,
                temperature=self._config.temperature if draw else None,
                top_p=self._config.top_p if draw else None,
                top_k=None,
                pad_token_id=loaded.tokenizer.pad_token_id,
            )
        return [
            self._completion(loaded, row[width:], tokens) for row, tokens in zip(rows, num_in, strict=True)
        ]

    def _completion(self, loaded: Loaded, new_T: Tensor, tokens_in: int) -> Completion:
        ids = new_T.tolist()
        ends = [place for place, token in enumerate(ids) if token in loaded.stop_ids]
        ids = ids[: ends[0]] if ends else ids
        return Completion(
            text=clean(loaded.tokenizer.decode(ids, skip_special_tokens=True)).strip(),
            finish="stop" if ends else "length",
            model=self.name,
            usage=Usage(tokens_in=tokens_in, tokens_out=len(ids)),
        )


def _inputs(loaded: Loaded, chats: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Token ids and pictures of a batch, padded on the left, on the model's device."""
    same = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    padded = {"padding": True, "return_tensors": "pt"}
    if loaded.processor is None:
        made = loaded.tokenizer.apply_chat_template(chats, **same, **padded)
    else:
        made = loaded.processor.apply_chat_template(chats, **same, processor_kwargs=padded)
    return {
        name: value.to(loaded.device, loaded.dtype if value.is_floating_point() else None)
        for name, value in made.items()
        if isinstance(value, Tensor) and name != "token_type_ids"
    }


def _content(turn: Message) -> list[dict[str, Any]]:
    pictures = [{"type": "image", "image": _picture(image)} for image in turn.images]
    return [*pictures, {"type": "text", "text": turn.text}]


def _picture(jpeg: bytes) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(jpeg)).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ItemError("refused", f"a picture is no whole JPEG ({error})") from error
