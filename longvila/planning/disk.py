"""How much disk a recipe will need, asked before it starts rather than found out in the middle."""

from __future__ import annotations

import shutil
from pathlib import Path

from longvila.config.data import DataConfig
from longvila.config.model import ModelConfig
from longvila.config.recipe import Recipe
from longvila.config.stage import StageConfig
from longvila.errors import MachineError

BYTES_PER_WEIGHT = {"float32": 4, "bfloat16": 2}
OPTIMIZER_BYTES_PER_WEIGHT = 12  # float32 master copy and two moments
JPEG_BYTES_PER_PIXEL = 0.35
RESERVE_BYTES = 200 * 2**20


def estimate_bytes(recipe: Recipe, *, source_bytes: int = 0) -> int:
    """What the workspace will hold at its fullest: videos, shards, resume points, exported checkpoints.

    An estimate from sizes alone, meant to be generous; weights given as ``pretrained`` are counted by the
    shape that the recipe states.
    """
    weights = count_weights(recipe.model)
    per_stage = [stage_bytes(stage, weights) for stage in recipe.stages]
    controls = len(recipe.controls) * weights * 4
    return RESERVE_BYTES + source_bytes + shard_bytes(recipe.data) + sum(per_stage) + controls


def count_weights(model: ModelConfig) -> int:
    """The number of weights by shape: attention and MLP of each layer, embeddings of 152,000 words."""
    vision, llm = model.vision, model.llm
    tower = vision.num_layers * (
        4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    )
    head = llm.hidden_size // llm.num_heads
    attention = 2 * llm.hidden_size**2 + 2 * llm.hidden_size * head * llm.num_kv_heads
    decoder = llm.num_layers * (attention + 3 * llm.hidden_size * llm.intermediate_size)
    words = 152_000 if model.tokenizer or llm.pretrained else 8_192
    embeddings = words * llm.hidden_size * (1 if llm.tie_word_embeddings else 2)
    joined = vision.hidden_size * model.projector.downsample**2
    return tower + decoder + embeddings + joined * llm.hidden_size + llm.hidden_size**2


def stage_bytes(stage: StageConfig, weights: int) -> int:
    """Resume points and the export of one stage; one more resume point lies there while it is written."""
    trained = weights if "llm" in stage.trains and stage.lora is None else weights // 4
    resume = weights * BYTES_PER_WEIGHT[stage.dtype] + trained * OPTIMIZER_BYTES_PER_WEIGHT
    return (stage.keep_checkpoints + 1) * resume + weights * BYTES_PER_WEIGHT[stage.dtype]


def shard_bytes(data: DataConfig | None) -> int:
    """Frames of the composed sets, as JPEG. Those of real videos are smaller than the videos themselves."""
    if data is None:
        return 0
    frame = int(data.frames.size**2 * JPEG_BYTES_PER_PIXEL) + 256
    needles = sum(s.num_samples * (s.min_frames + s.max_frames) // 2 for s in data.needle_sets)
    captions = sum(s.num_samples for s in data.frame_captions)
    texts = sum(s.num_samples * s.max_tokens * 4 for s in data.recall_texts)
    return (needles + captions) * frame + texts


def check_free_space(folder: Path, needed_bytes: int) -> None:
    """Raise ``MachineError`` when the disk of ``folder`` has less than ``needed_bytes`` free."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise MachineError(
            f"{existing} has {_gib(free)} free, but this recipe needs about {_gib(needed_bytes)}. "
            "Free some space, or put the workspace on another disk with --workspace."
        )


def _gib(size_bytes: int) -> str:
    if size_bytes < 2**30:
        return f"{size_bytes / 2**20:.0f} MiB"
    return f"{size_bytes / 2**30:.1f} GiB"
