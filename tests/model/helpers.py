"""A model of a hundred thousand parameters, and what one process needs to run it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from longvila.config.model import LlmConfig, ModelConfig, ProjectorConfig, VisionConfig
from longvila.model import LongVila, build_model, normalise
from longvila.parallel import Plan, make_attend, make_exchange, make_groups, make_plan, register_attention

VOCAB = 40
PLACEHOLDER = 39


def tiny_config(**changes: Any) -> ModelConfig:
    """Frames of 32 pixels become 4 visual tokens; two decoder layers with grouped heads."""
    settings: dict[str, Any] = {
        "vision": VisionConfig(
            image_size=32, patch_size=8, hidden_size=24, intermediate_size=48, num_layers=3, num_heads=2
        ),
        "projector": ProjectorConfig(output_norm=True),
        "llm": LlmConfig(
            hidden_size=32,
            intermediate_size=64,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            rope_theta=100.0,
            max_context=64,
            embedding_std=1.0,
        ),
        "frame_separator": None,
    }
    return ModelConfig(**{**settings, **changes})


def tiny_model(*, seed: int = 0, **changes: Any) -> LongVila:
    """A model of ``tiny_config``."""
    return build_model(tiny_config(**changes), vocab_size=VOCAB, seed=seed)


def one_process_plan(
    *, lengths: tuple[int, ...] = (24,), frame_seats: tuple[int, ...] = (2, 6), tokens_per_frame: int = 4
) -> Plan:
    """A packed row for a world of one."""
    return make_plan(
        lengths,
        np.array(frame_seats, dtype=np.int64),
        tokens_per_frame=tokens_per_frame,
        patches_per_frame=16,
        ulysses_degree=1,
        ring_degree=1,
    )


def random_frames(count: int, *, seed: int = 0, size: int = 32) -> Tensor:
    """Normalised noise [f, 3, H, W]."""
    bytes_fHW3 = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return normalise(bytes_fHW3)


def random_ids(plan: Plan, *, seed: int = 0) -> Tensor:
    """Token ids [1, T] with placeholders on the seats of the frames."""
    ids = torch.randint(5, PLACEHOLDER, (1, plan.layout.padded_length), generator=torch.manual_seed(seed))
    ids[0, torch.from_numpy(plan.local_seats(0))] = PLACEHOLDER
    return ids


def run(model: LongVila, plan: Plan, ids: Tensor, frames: Tensor | None, **options: Any) -> Tensor:
    """Hidden states [1, T, D] of a packed row, computed by this process alone."""
    register_attention()
    groups = make_groups()
    return model(
        ids,
        torch.from_numpy(plan.layout.position_ids())[None],
        frames,
        torch.from_numpy(plan.local_seats(0)),
        attend=make_attend(plan, groups),
        exchange=make_exchange(plan, groups),
        **options,
    )
