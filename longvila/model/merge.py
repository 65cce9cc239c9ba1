"""Adapters folded into the weights they adapt, so that what is exported is a plain LLM."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

ADAPTER = "default"
"""The name peft gives to the one adapter of a module."""


def plain_state(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return a state dict without adapters: their products added to the weights, names as without them.

    ``state`` is the model's state dict where the model itself holds only a shard of it (ZeRO 3). The sums are
    made in float32 (float64 for float64 weights); the model is not changed.
    """
    state = model.state_dict() if state is None else state
    scales = {name: adapter_scale(module) for name, module in model.named_modules() if is_adapted(module)}
    plain: dict[str, Tensor] = {}
    for key, tensor in state.items():
        owner, adapted, rest = key.partition(".base_layer.")
        if ".lora_" in key:
            continue
        if adapted and rest == "weight":
            tensor = merged_weight(
                tensor,
                state[f"{owner}.lora_A.{ADAPTER}.weight"],
                state[f"{owner}.lora_B.{ADAPTER}.weight"],
                scale=scales[owner],
            )
        plain[f"{owner}.{rest}" if adapted else key] = tensor
    return plain


def merged_weight(weight: Tensor, lora_A: Tensor, lora_B: Tensor, *, scale: float) -> Tensor:
    """Return ``weight + scale · B A`` in the weight's dtype."""
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
    product = lora_B.detach().to(wide) @ lora_A.detach().to(wide)
    return (weight.detach().to(wide) + scale * product).to(weight.dtype)


def merge_lora(model: nn.Module) -> int:
    """Fold all adapters of ``model`` into their weights, in place, and return how many there were."""
    adapted = [(name, module) for name, module in model.named_modules() if is_adapted(module)]
    for name, module in adapted:
        base = module.get_submodule("base_layer")
        weight = base.get_parameter("weight")
        weight.data = merged_weight(
            weight,
            module.get_parameter(f"lora_A.{ADAPTER}.weight"),
            module.get_parameter(f"lora_B.{ADAPTER}.weight"),
            scale=adapter_scale(module),
        )
        model.set_submodule(name, base)
    return len(adapted)


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a linear layer wrapped by a LoRA adapter."""
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")


def adapter_scale(module: nn.Module) -> float:
    """Return what a module's adapter is multiplied with: alpha ÷ rank."""
    scaling = getattr(module, "scaling")  # noqa: B009  (nn.Module's own attributes are typed as tensors)
    return float(scaling[ADAPTER])
