"""Stage 4: low-rank adapters on the LLM's attention; embeddings and norms train whole (LongLoRA)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import LoraConfig, inject_adapter_in_model

from longvila.errors import ConfigError
from longvila.model.module import LongVila


def wrap_lora(
    model: LongVila,
    *,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    train_embeddings_and_norms: bool = True,
    seed: int = 0,
) -> None:
    """Put adapters into the LLM, in place, and let only them (and embeddings and norms) train in it.

    The adapters start as zero, so the model's output does not change. Tower and projector keep what
    ``set_trainable`` gave them. ``longvila.model.merge`` folds the adapters in again.
    """
    known = {name.rpartition(".")[2] for name, _ in model.llm.named_modules()}
    missing = [target for target in targets if target not in known]
    if missing:
        raise ConfigError(
            f"lora.targets names {missing}, which the LLM does not have. "
            f"Choose from {sorted(name for name in known if name.endswith('_proj'))}."
        )
    settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=0.0)  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, model.llm)
    for name, parameter in model.llm.named_parameters():
        whole = train_embeddings_and_norms and ("embed" in name or "norm" in name)
        parameter.requires_grad_(whole or ".lora_" in name)
