"""Reading a checkpoint in the published layout, and saying what is wrong with one that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, SiglipVisionModel

from longvila.errors import InputError
from longvila.model import layout
from longvila.model.build import embedding_rows, quiet_loading
from longvila.model.module import LongVila
from longvila.model.projector import Projector
from longvila.model.vision import num_layers_run
from longvila.model.weights import load_weights, weight_files
from longvila.text import IMAGE_TOKEN, load_tokenizer


class Checkpoint(NamedTuple):
    """A loaded model, its tokenizer, and what was written down about it."""

    model: LongVila
    tokenizer: PreTrainedTokenizerFast
    info: dict[str, Any]


def load_checkpoint(path: Path | str, *, dtype: torch.dtype | None = None) -> Checkpoint:
    """Load a checkpoint in the published layout onto the CPU, in the dtype it was written in unless told.

    ``info`` holds ``stage_info``, ``weights_sha256`` (both empty for a checkpoint that others wrote) and
    ``config``, the top config.json. Raises ``InputError`` for a folder that is missing, incomplete, damaged,
    or whose parts do not fit together.
    """
    path = Path(path)
    config = read_config(path)
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


def read_config(path: Path) -> dict[str, Any]:
    """Return the top config.json of a checkpoint; raise ``InputError`` where there is none."""
    if not path.is_dir():
        raise InputError(f"There is no checkpoint folder {path}. Name one that holds config.json and llm/.")
    config = read_json(path / "config.json")
    needed = ("llm_cfg", "vision_tower_cfg", "mm_projector_cfg", "mm_vision_select_layer")
    lacking = [key for key in needed if config.get(key) is None]
    if lacking:
        raise InputError(
            f"{path / 'config.json'} lacks {', '.join(lacking)}, so it is no LongVILA or VILA checkpoint. "
            "Name the folder that holds llm/, vision_tower/ and mm_projector/, not one of these."
        )
    return config


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file of a checkpoint; raise ``InputError`` when it is missing or damaged."""
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
    read_json(folder / "config.json")
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
    report["missing_keys"] = {name for name in report["missing_keys"] if not _never_run(name)}
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    wrong = {kind: sorted(report[kind]) for kind in kinds if report[kind]}
    if wrong:
        raise InputError(
            f"The weights in {folder} do not fit its config.json: {wrong}. Copy the folder again."
        )
    return part


def _never_run(name: str) -> bool:
    """Whether a weight belongs to SigLIP's pooling head, which no feature needs."""
    return name.removeprefix("vision_model.").startswith("head.")


def _load_projector(folder: Path, tower: PreTrainedModel, llm: PreTrainedModel) -> Projector:
    config = layout.read_projector(read_json(folder / "config.json"), str(folder / "config.json"))
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
