"""RoPE for longer contexts: its base is raised with the trained length (paper, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from longvila.errors import ConfigError


def rope_theta(llm: PreTrainedModel) -> float:
    """Return the RoPE base of an LLM."""
    return float(llm.config.rope_parameters["rope_theta"])


def set_rope_theta(model: nn.Module, theta: float | None, max_context: int | None = None) -> None:
    """Set the RoPE base and the longest context of a ``LongVila`` or an LLM; ``None`` leaves one as it is.

    The kind of RoPE (``default``, ``linear`` …) and its other parameters stay. The rotary module is made
    anew: without that the change would reach only those who load the saved config.
    """
    llm = getattr(model, "llm", model)
    assert isinstance(llm, PreTrainedModel)
    parameters = llm.config.rope_parameters
    if not isinstance(parameters, dict) or "rope_theta" not in parameters:
        raise ConfigError(
            f"{type(llm).__name__} has no single RoPE base (rope_parameters={parameters}), so "
            "rope_theta cannot be raised. Leave the stage's rope_theta out, or use a Qwen2-like LLM."
        )
    if theta is not None:
        llm.config.rope_parameters = {**parameters, "rope_theta": float(theta)}
    if max_context is not None:
        llm.config.max_position_embeddings = max_context
    rebuild_rotary(llm)


def rebuild_rotary(llm: PreTrainedModel) -> None:
    """Make the rotary module anew from ``llm.config``, in float32, on the device where it was."""
    body = llm.get_submodule("model")
    old = body.get_submodule("rotary_emb")
    device = _frequencies(old).device
    body.add_module("rotary_emb", type(old)(config=llm.config).to(device))  # pyright: ignore[reportCallIssue]


def keep_rotary_precise(llm: PreTrainedModel) -> None:
    """Undo what ``module.bfloat16()`` does to the rotary frequencies.

    They are a buffer, so casting a model rounds them to 8 bits, and positions beyond a few hundred then turn
    by wrong angles. Engines cast models; this puts the float32 frequencies back and costs nothing otherwise.
    """
    frequencies = _frequencies(llm.get_submodule("model.rotary_emb"))
    if frequencies.dtype in (torch.bfloat16, torch.float16):
        rebuild_rotary(llm)


def _frequencies(rotary: nn.Module) -> Tensor:
    return rotary.get_buffer("inv_freq")
