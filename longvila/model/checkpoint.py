"""Export and import (longvila.model.load) of whole models in the published layout: what stages exchange.

Any stage can start from a published checkpoint, and any stage's result can be loaded by VILA's own loader (a
projector with ``output_norm`` excepted) or, part by part, by plain transformers.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from longvila.model import layout
from longvila.model.load import Checkpoint, load_checkpoint, read_config, read_json
from longvila.model.merge import plain_state
from longvila.model.module import LongVila
from longvila.model.weights import load_weights, save_weights, weights_digest

__all__ = ["Checkpoint", "checkpoint_digest", "compute_digest", "export_checkpoint", "load_checkpoint"]

logger = logging.getLogger(__name__)

VISION_PREFIX = "vision_model."


def export_checkpoint(
    model: LongVila,
    tokenizer: PreTrainedTokenizerFast,
    path: Path,
    *,
    stage_info: Mapping[str, Any],
    state: Mapping[str, Tensor] | None = None,
    max_shard_size: int | str = "5GB",
) -> str:
    """Write a checkpoint folder, whole or not at all, and return the digest of its weights.

    ``state`` is the model's full state dict where the model holds only a shard of it (ZeRO 3). Adapters are
    merged into what is written; the model is not changed. An older checkpoint at ``path`` is replaced.
    ``stage_info`` is any JSON: what made these weights.
    """
    parts = split_state(plain_state(model, state), model)
    digest = weights_digest(
        {f"{part}.{key}": value for part, some in parts.items() for key, value in some.items()}
    )
    _warn_of_legacy_name(path)
    _remove_leftovers(path)
    draft = path.parent / f".{path.name}.{os.getpid()}.draft"
    for part, folder in layout.PART_FOLDERS.items():
        (draft / folder).mkdir(parents=True)
        save_weights(parts[part], draft / folder, max_shard_size=max_shard_size)
    dtype = next(iter(parts["projector"].values())).dtype
    _write_tokenizer(tokenizer, draft / "llm", max_context=model.llm.config.max_position_embeddings)
    for name, content in _configs(model, tokenizer, dtype, stage_info, digest).items():
        _write_json(draft / name, content)
    _publish(draft, path)
    return digest


def split_state(state: Mapping[str, Tensor], model: LongVila) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of each part under the names that they have in the published layout."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in layout.PART_FOLDERS}
    tied = getattr(model.llm.config, "tie_word_embeddings", False)
    for key, tensor in state.items():
        part, _, name = key.partition(".")
        if part == "llm" and tied and name == "lm_head.weight":
            continue
        if part == "vision_tower" and not name.startswith(VISION_PREFIX):
            name = VISION_PREFIX + name  # transformers 5 leaves it out; the published loader needs it
        parts[part][name] = tensor
    return parts


def checkpoint_digest(path: Path | str) -> str:
    """Return the digest that a checkpoint says its weights have, or compute it for one that says nothing."""
    path = Path(path)
    stated = (read_config(path).get("longvila") or {}).get("weights_sha256")
    return stated or compute_digest(path)


def compute_digest(path: Path | str) -> str:
    """Return the digest of a checkpoint's weights as they lie on the disk now."""
    state: dict[str, Tensor] = {}
    for part, folder in layout.PART_FOLDERS.items():
        for name, tensor in load_weights(Path(path) / folder).items():
            state[f"{part}.{name}"] = tensor
    return weights_digest(state)


def _configs(
    model: LongVila,
    tokenizer: PreTrainedTokenizerFast,
    dtype: torch.dtype,
    stage_info: Mapping[str, Any],
    digest: str,
) -> dict[str, dict[str, Any]]:
    return {
        "config.json": layout.top_json(model, tokenizer, dtype=dtype, stage_info=stage_info, digest=digest),
        "llm/config.json": layout.llm_json(model, tokenizer, dtype=dtype),
        "llm/generation_config.json": {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "vision_tower/config.json": layout.vision_json(model, dtype=dtype),
        "vision_tower/preprocessor_config.json": layout.preprocessor_json(model),
        "mm_projector/config.json": layout.projector_json(model, dtype=dtype),
    }


def _write_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, *, max_context: int) -> None:
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    path = folder / "tokenizer_config.json"
    settings = {**read_json(path), "model_max_length": max_context, "padding_side": "right"}
    _write_json(path, layout.tokenizer_json(settings))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(
        json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _warn_of_legacy_name(path: Path) -> None:
    name = next((name for name in layout.LEGACY_NAMES if name in str(path).lower()), None)
    if name is not None:
        logger.warning(
            "the path %s contains %r: VILA's own loader takes an old prompt template for it, not the "
            "tokenizer's. Rename the folder before you load it there",
            path,
            name,
        )


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed export left beside ``path``."""
    for left in (*path.parent.glob(f".{path.name}.*.draft"), *path.parent.glob(f".{path.name}.*.old")):
        shutil.rmtree(left, ignore_errors=True)


def _publish(draft: Path, path: Path) -> None:
    for written in (*draft.rglob("*"), draft):
        descriptor = os.open(written, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    old = path.parent / f".{path.name}.{os.getpid()}.old"
    if path.exists():
        path.replace(old)
    draft.replace(path)
    shutil.rmtree(old, ignore_errors=True)
