"""Which Hugging Face decoders can be spread over ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedModel

from longvila.errors import ConfigError

_ATTENTION = {"attention", "full_attention", "sliding_attention", "chunked_attention"}
_KINDS_OF_LAYERS = ("layer_types", "layers_block_type", "block_types", "_block_types")


def check_decoder(model: PreTrainedModel) -> None:
    """Raise ConfigError for a decoder whose tokens meet outside of transformers' attention interface."""
    if not type(model)._can_set_attn_implementation():
        raise ConfigError(
            f"{type(model).__name__} does not use transformers' attention interface, so its attention cannot "
            "be replaced: on many ranks each would see its own tokens only. Use a decoder that does, such as "
            "Llama, Qwen2, Qwen3, Mistral or Gemma 3."
        )
    check_layers(model.config)


def check_layers(config: Any) -> None:
    """Raise ConfigError for layers that mix tokens otherwise than by attention: a rank has only its own."""
    others = sorted(set(_kinds_of_layers(config)) - _ATTENTION)
    if others:
        raise ConfigError(
            f"the layers of {type(config).__name__} mix tokens by {', '.join(others)}, not by attention "
            "alone. A rank has only its own tokens, and packed documents would meet. Use a decoder of "
            "attention layers, or one process with one document at a time on another attention."
        )


def _kinds_of_layers(config: Any) -> Iterator[str]:
    for name in _KINDS_OF_LAYERS:
        kinds = getattr(config, name, None)
        if isinstance(kinds, list | tuple):
            yield from (kind for kind in kinds if isinstance(kind, str))
