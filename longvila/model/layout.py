"""The JSON files of the published checkpoint layout (VILA's), and what its loader insists on.

::

    config.json            what stands where; key ``longvila`` holds what only we read
    llm/                   a plain Qwen2ForCausalLM with its tokenizer
    vision_tower/          a plain SiglipVisionModel with its image processor
    mm_projector/          layers.1, layers.2, layers.4
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from longvila.config.model import ProjectorConfig
from longvila.errors import InputError
from longvila.model.module import LongVila

FORMAT = 1
PART_FOLDERS = {"llm": "llm", "vision_tower": "vision_tower", "projector": "mm_projector"}
PROJECTOR_TYPES = {
    "mlp_downsample": "mlp_downsample",
    "mlp_downsample_3x3": "mlp_downsample_3x3_fix",
    "linear": "linear",
}
# The published loader takes an old prompt template for folders whose path contains one of these.
LEGACY_NAMES = ("vila1.5-3b", "vila1.5-8b", "vila1.5-13b", "vila1.5-40b", "nvila15b", "llama-3", "llama3")
# Written by others, the same maths.
PROJECTOR_KINDS = {
    **{name: kind for kind, name in PROJECTOR_TYPES.items()},
    "mlp_downsample_2x2_fix": "mlp_downsample",
}


def llm_json(model: LongVila, tokenizer: PreTrainedTokenizerFast, *, dtype: torch.dtype) -> dict[str, Any]:
    """Return ``llm/config.json``: readable by transformers 5 and by 4.x, which the published loader pins."""
    config = _plain_config(model.llm, dtype)
    rope = dict(model.llm.config.rope_parameters)
    if "rope_theta" in rope:  # where transformers 4 looks for it
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = None if rope["rope_type"] == "default" else _legacy_scaling(rope)
    context = model.llm.config.max_position_embeddings
    return {
        **config,
        "architectures": [type(model.llm).__name__],
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "model_max_length": context,
        "tokenizer_model_max_length": context,
        "tokenizer_padding_side": "right",
    }


def _legacy_scaling(rope: dict[str, Any]) -> dict[str, Any]:
    return {**rope, "type": rope["rope_type"]}


def vision_json(model: LongVila, *, dtype: torch.dtype) -> dict[str, Any]:
    """Return ``vision_tower/config.json``."""
    return {**_plain_config(model.vision_tower, dtype), "architectures": ["SiglipVisionModel"]}


def preprocessor_json(model: LongVila) -> dict[str, Any]:
    """Return ``vision_tower/preprocessor_config.json``: SigLIP's resize (bicubic) and normalisation."""
    return {
        "image_processor_type": "SiglipImageProcessor",
        "processor_class": "SiglipProcessor",
        "do_convert_rgb": None,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": {"height": model.image_size, "width": model.image_size},
    }


def projector_json(model: LongVila, *, dtype: torch.dtype) -> dict[str, Any]:
    """Return ``mm_projector/config.json``. ``output_norm`` is ours: the published loader does not know it."""
    config = {
        "architectures": ["MultimodalProjector"],
        "model_type": "v2l_projector",
        "mm_projector_type": PROJECTOR_TYPES[model.projector.kind],
        "torch_dtype": _dtype_name(dtype),
    }
    return {**config, "output_norm": True} if model.projector.norm is not None else config


def top_json(
    model: LongVila,
    tokenizer: PreTrainedTokenizerFast,
    *,
    dtype: torch.dtype,
    stage_info: Mapping[str, Any],
    digest: str,
) -> dict[str, Any]:
    """Return the top ``config.json`` with every key that the published loader reads."""
    separator = {"start_tokens": None, "end_tokens": model.frame_separator}
    return {
        "architectures": ["LlavaLlamaModel"],
        "model_type": "llava_llama",
        "resume_path": None,
        "llm_cfg": llm_json(model, tokenizer, dtype=dtype),
        "vision_tower_cfg": vision_json(model, dtype=dtype),
        "mm_projector_cfg": projector_json(model, dtype=dtype),
        "hidden_size": model.llm.config.hidden_size,
        "mm_hidden_size": model.vision_tower.config.hidden_size,
        "model_dtype": f"torch.{_dtype_name(dtype)}",
        "mm_vision_select_layer": model.select_layer,
        "mm_vision_select_feature": "cls_patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "mm_projector_lr": None,
        "image_aspect_ratio": "resize",
        "image_encoder": json.dumps({"_target_": "llava.model.encoders.BasicImageEncoder", **separator}),
        "video_encoder": json.dumps({"_target_": "llava.model.encoders.BasicVideoEncoder", **separator}),
        "num_video_frames": int(stage_info.get("max_frames", 8)),
        "fps": 0.0,
        "drop_path_rate": 0.0,
        "interpolate_mode": "linear",
        "vision_resolution": -1,
        "s2": False,
        "s2_scales": "336,672,1008",
        "s2_max_split_size": 336,
        "s2_resize_output_to_scale_idx": 0,
        "dynamic_s2": False,
        "num_time_tokens": 0,
        "time_token_format": "<t{t}>",
        "time_token_ids": [],
        "soft_ce_std": 1.0,
        "tune_language_model": True,
        "tune_vision_tower": True,
        "tune_mm_projector": True,
        "longvila": {"format": FORMAT, "weights_sha256": digest, "stage_info": dict(stage_info)},
    }


def read_projector(config: Mapping[str, Any], where: str) -> ProjectorConfig:
    """Return our configuration of a projector; raise ``InputError`` for a kind that we do not have."""
    name = config.get("mm_projector_type")
    kind = PROJECTOR_KINDS.get(str(name))
    if kind is None:
        raise InputError(
            f"{where} has mm_projector_type={name!r}. Supported are {', '.join(sorted(PROJECTOR_KINDS))}."
        )
    return ProjectorConfig.model_validate({"kind": kind, "output_norm": bool(config.get("output_norm"))})


def read_separator(config: Mapping[str, Any]) -> str | None:
    """Return the text after each frame's tokens: a line end where a checkpoint does not name one."""
    encoder = config.get("video_encoder")
    if encoder is None:
        return "\n"
    settings = json.loads(encoder) if isinstance(encoder, str) else encoder
    return settings.get("end_tokens", "\n")


def tokenizer_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tokenizer_config.json that transformers 4 reads too, which names some things otherwise."""
    out = {key: value for key, value in config.items() if key not in ("backend", "extra_special_tokens")}
    if out.get("tokenizer_class") == "TokenizersBackend":
        out["tokenizer_class"] = "PreTrainedTokenizerFast"
    extra = config.get("extra_special_tokens")
    if isinstance(extra, list):
        out["additional_special_tokens"] = extra
    elif extra is not None:
        out["extra_special_tokens"] = extra
    return out


def _plain_config(part: PreTrainedModel, dtype: torch.dtype) -> dict[str, Any]:
    config = {key: value for key, value in part.config.to_dict().items() if key != "_name_or_path"}
    return {**config, "dtype": _dtype_name(dtype), "torch_dtype": _dtype_name(dtype)}


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
