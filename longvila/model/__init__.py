"""The model: vision tower, projector and LLM, their preprocessing, RoPE scaling and checkpoints."""

from longvila.model.build import build_model, build_tower
from longvila.model.checkpoint import (
    Checkpoint,
    checkpoint_digest,
    compute_digest,
    export_checkpoint,
    load_checkpoint,
)
from longvila.model.merge import merge_lora, plain_state
from longvila.model.module import Attend, Exchange, LongVila, identity_exchange
from longvila.model.parts import count_parameters, part_of, set_trainable, trainable_parameters
from longvila.model.preprocess import normalise
from longvila.model.projector import Projector
from longvila.model.rope import rebuild_rotary, rope_theta, set_rope_theta

__all__ = [
    "Attend",
    "Checkpoint",
    "Exchange",
    "LongVila",
    "Projector",
    "build_model",
    "build_tower",
    "checkpoint_digest",
    "compute_digest",
    "count_parameters",
    "export_checkpoint",
    "identity_exchange",
    "load_checkpoint",
    "merge_lora",
    "normalise",
    "part_of",
    "plain_state",
    "rebuild_rotary",
    "rope_theta",
    "set_rope_theta",
    "set_trainable",
    "trainable_parameters",
]
