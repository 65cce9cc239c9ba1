"""Export and import of whole models in the published layout: what stages exchange, with the world too.

Any stage can start from a published checkpoint, and any stage's result can be loaded by VILA's own loader (a
projector with ``output_norm`` excepted) or, part by part, by plain transformers.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, SiglipVisionModel

from longvila.errors import InputError
from longvila.model import layout
from longvila.model.build import embedding_rows, quiet_loading
from longvila.model.merge import plain_state
from longvila.model.module import LongVila
from longvila.model.projector import Projector
from longvila.model.vision import num_layers_run
from longvila.model.weights import load_weights, save_weights, weight_files, weights_digest
from longvila.text import IMAGE_TOKEN, load_tokenizer

VISION_PREFIX = "vision_model."


class Checkpoint(NamedTuple):
    """A loaded model, its tokenizer, and what was written down about it."""

    model: LongVila
    tokenizer: PreTrainedTokenizerFast
    info: dict[str, Any]


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
            name = (
                VISION_PREFIX + name
            )  # transformers 5 writes the tower without it; the published loader needs it
        parts[part][name] = tensor
    return parts


def load_checkpoint(path: Path | str, *, dtype: torch.dtype | None = None) -> Checkpoint:
    """Load a checkpoint in the published layout onto the CPU, in the dtype it was written in unless told.

    ``info`` holds ``stage_info``, ``weights_sha256`` (both empty for a checkpoint that others wrote) and
    ``config``, the top config.json. Raises ``InputError`` for a folder that is missing, incomplete, damaged,
    or whose parts do not fit together.
    """
    path = Path(path)
    config = _read_config(path)
    dtype = dtype or _dtype_of(config, path)
    for folder in layout.PART_FOLDERS.values():
        weight_files(path / folder)
    llm = _load_part(AutoModelForCausalLM, path / "llm", dtype)
    tower = _load_part(SiglipVisionModel, path / "vision_tower", dtype)
    assert isinstance(tower, SiglipVisionModel)
    projector = _load_projector(path / "mm_projector", tower, llm).to(dtype)
    tokenizer = load_tokenizer(path / "llm")
    _check_tokens(tokenizer, llm, path)
    select_layer = int(config["mm_vision_select_layer"])
    num_layers_run(tower, select_layer)
    separator = layout.read_separator(config)
    model = LongVila(tower, projector, llm, select_layer=select_layer, frame_separator=separator)
    ours = config.get("longvila") or {}
    info = {"stage_info": {}, "weights_sha256": "", **ours, "config": config}
    return Checkpoint(model.eval(), tokenizer, info)


def checkpoint_digest(path: Path | str) -> str:
    """Return the digest that a checkpoint says its weights have, or compute it for one that says nothing."""
    path = Path(path)
    stated = (_read_config(path).get("longvila") or {}).get("weights_sha256")
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
    settings = {**_read_json(path), "model_max_length": max_context, "padding_side": "right"}
    _write_json(path, layout.tokenizer_json(settings))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(
        json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
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


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise InputError(f"There is no checkpoint folder {path}. Name one that holds config.json and llm/.")
    config = _read_json(path / "config.json")
    needed = ("llm_cfg", "vision_tower_cfg", "mm_projector_cfg", "mm_vision_select_layer")
    lacking = [key for key in needed if config.get(key) is None]
    if lacking:
        raise InputError(
            f"{path / 'config.json'} lacks {', '.join(lacking)}, so it is no LongVILA or VILA checkpoint. "
            "Name the folder that holds llm/, vision_tower/ and mm_projector/, not one of these."
        )
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"The checkpoint lacks {path}. Copy the whole folder again.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not JSON: {error}. The file is cut off or damaged; copy it again."
        ) from error


def _dtype_of(config: Mapping[str, Any], path: Path) -> torch.dtype:
    name = str(config.get("model_dtype", "torch.float32")).removeprefix("torch.")
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise InputError(
            f"{path / 'config.json'} has model_dtype={name!r}. Use bfloat16, float16 or float32."
        )
    return dtype


def _load_part(kind: Any, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    _read_json(folder / "config.json")
    try:
        with quiet_loading():
            part, report = kind.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{folder} cannot be loaded: {error}. It is damaged or of an unknown kind: copy it again."
        ) from error
    wrong = {
        key: sorted(report[key])
        for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if report[key]
    }
    if wrong:
        raise InputError(
            f"The weights in {folder} do not fit its config.json: {wrong}. Copy the folder again."
        )
    return part


def _load_projector(folder: Path, tower: PreTrainedModel, llm: PreTrainedModel) -> Projector:
    config = layout.read_projector(_read_json(folder / "config.json"), str(folder / "config.json"))
    projector = Projector(config, vision_width=tower.config.hidden_size, llm_width=llm.config.hidden_size)
    try:
        projector.load_state_dict(load_weights(folder))
    except RuntimeError as error:
        raise InputError(
            f"The projector in {folder} does not fit between a tower {tower.config.hidden_size} wide and "
            f"an LLM {llm.config.hidden_size} wide: {error}. Copy all three parts from one checkpoint."
        ) from error
    return projector


def _check_tokens(tokenizer: PreTrainedTokenizerFast, llm: PreTrainedModel, path: Path) -> None:
    rows = embedding_rows(llm)
    last = max(number for token, number in tokenizer.get_vocab().items() if token != IMAGE_TOKEN)
    if last >= rows:
        raise InputError(
            f"The tokenizer in {path / 'llm'} has ids up to {last}, but the LLM has {rows} embeddings. "
            "They come from different checkpoints: copy tokenizer and weights from the same one."
        )
