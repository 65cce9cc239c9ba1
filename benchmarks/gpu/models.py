"""Decoders of published shapes, with weights made up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that decide what it costs."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = False

    @property
    def head_size(self) -> int:
        """Numbers per head."""
        return self.hidden // self.heads


QWEN2_1_5B = Shape("qwen2-1.5b", 1536, 8960, 28, 12, 2, 151936, tied=True)
QWEN2_7B = Shape("qwen2-7b", 3584, 18944, 28, 28, 4, 152064)
LLAMA_8B = Shape("llama-8b", 4096, 14336, 32, 32, 8, 128256)
TINY = Shape("tiny", 64, 128, 3, 4, 2, 256)
SHAPES = {shape.name: shape for shape in (QWEN2_1_5B, QWEN2_7B, LLAMA_8B, TINY)}


def make_decoder(
    shape: Shape, *, layers: int, attention: str, lora: bool, device: torch.device
) -> Qwen2ForCausalLM:
    """Build a decoder in bfloat16 on a device; with ``lora`` only adapters (rank 8 on q, k, v, o) train."""
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=1 << 23,
    )
    with _default_dtype(torch.bfloat16), device:
        model = Qwen2ForCausalLM(config)
        if lora:
            _add_adapters(model, rank=8)
    model.set_attn_implementation(attention)
    return model.train()


class Adapter(nn.Module):
    """A frozen linear layer with a trained one of low rank beside it (peft may not be there)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the adapter gives."""
        return self.base(x) + self.up(self.down(x))


def _add_adapters(model: Qwen2ForCausalLM, *, rank: int) -> None:
    """Let only adapters on q, k, v and o train."""
    model.requires_grad_(False)
    for layer in model.model.layers:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(layer.self_attn, name, Adapter(getattr(layer.self_attn, name), rank))
    model.enable_input_require_grads()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
