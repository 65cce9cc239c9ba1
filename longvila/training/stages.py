"""What a stage trains, at which learning rates, and how these change over its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

from torch import nn

from longvila.config.stage import OptimizerConfig, StageConfig
from longvila.errors import ConfigError
from longvila.model.lora import wrap_lora
from longvila.model.module import LongVila
from longvila.model.parts import set_trainable, trainable_parameters
from longvila.model.rope import set_rope_theta
from longvila.parallel import HostMemory, tile_tokens


class ParameterGroup(TypedDict):
    """One group of an optimizer."""

    params: list[nn.Parameter]
    lr: float
    weight_decay: float


def prepare(model: LongVila, stage: StageConfig) -> None:
    """Make a loaded model ready for a stage, in place: what trains, adapters, RoPE, what saves memory.

    Adapters start from the stage's seed, so every process makes the same ones.
    """
    set_trainable(model, stage.trains)
    if stage.rope_theta is not None or stage.max_context is not None:
        set_rope_theta(model, stage.rope_theta, stage.max_context)
    if stage.lora is not None:
        wrap_lora(
            model,
            rank=stage.lora.rank,
            alpha=stage.lora.alpha,
            targets=stage.lora.targets,
            train_embeddings_and_norms=stage.lora.train_embeddings_and_norms,
            seed=stage.seed,
        )
    if stage.mlp_tiles:
        tile_tokens(model.llm, stage.mlp_tiles)
    if stage.gradient_checkpointing:
        host = HostMemory() if stage.offload_activations else None
        model.enable_gradient_checkpointing(keep_attention=stage.keep_attention, host=host)


def parameter_groups(model: LongVila, optimizer: OptimizerConfig) -> list[ParameterGroup]:
    """Group what trains by learning rate, and matrices apart from vectors: norms and biases do not decay.

    As few groups as possible, since engines pay for each. Raises ``ConfigError`` when nothing trains.
    """
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    for part, named in trainable_parameters(model).items():
        rate = optimizer.part_learning_rates.get(part, optimizer.learning_rate)
        for _, parameter in named:
            decay = optimizer.weight_decay if parameter.ndim >= 2 else 0.0
            grouped.setdefault((rate, decay), []).append(parameter)
    if not grouped:
        raise ConfigError("no parameter trains. Name at least one of vision_tower, projector, llm in trains")
    return [
        ParameterGroup(params=parameters, lr=rate, weight_decay=decay)
        for (rate, decay), parameters in grouped.items()
    ]


def schedule_factor(step: int, *, total_steps: int, optimizer: OptimizerConfig) -> float:
    """The factor on all learning rates in the step (from 0): linear warm-up, then cosine or constant."""
    warmup_steps = math.ceil(optimizer.warmup_ratio * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if optimizer.schedule == "constant":
        return 1.0
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


def learning_rates(
    step: int, *, base: Sequence[float], total_steps: int, optimizer: OptimizerConfig
) -> list[float]:
    """The learning rate of each parameter group in the step (from 0)."""
    factor = schedule_factor(step, total_steps=total_steps, optimizer=optimizer)
    return [rate * factor for rate in base]
