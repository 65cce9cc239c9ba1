"""Loads a local language model with what belongs to it: tokenizer, processor, stop tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from longvila.config.language import LanguageModelConfig
from longvila.errors import ConfigError, InputError, MachineError
from longvila.records import content_id

_END_BYTES = 1 << 16


@dataclass(frozen=True)
class Loaded:
    """A model ready to generate. ``processor`` is None for one that reads text only."""

    model: Any
    tokenizer: Any
    processor: Any | None
    device: torch.device
    dtype: torch.dtype
    stop_ids: frozenset[int]
    max_context: int | None


def load_weights(config: LanguageModelConfig) -> Loaded:
    """Load from a folder or a .gguf file. Raises ``InputError``, ``ConfigError``, ``MachineError``."""
    path = model_path(config)
    device = _device(config.device)
    dtype = _dtype(config.dtype, device)
    try:
        if path.suffix == ".gguf":
            model, tokenizer, processor = *_load_gguf(path, dtype), None
        else:
            model, tokenizer, processor = _load_folder(path, dtype)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"The language model {path} cannot be loaded: {_first_line(error)} "
            "It must be a whole checkpoint of a kind that transformers knows."
        ) from error
    _prepare(tokenizer, processor, path)
    model = model.to(device).eval()
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        processor=processor,
        device=device,
        dtype=model.dtype,
        stop_ids=_stop_ids(model, tokenizer),
        max_context=getattr(model.config.get_text_config(), "max_position_embeddings", None),
    )


def model_path(config: LanguageModelConfig) -> Path:
    """Where the model lies. Raises ``InputError`` when it is not there."""
    path = Path(config.model).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return path
    if path.suffix != ".gguf" and (path / "config.json").is_file():
        return path
    raise InputError(
        f"There is no language model {config.model}: give a checkpoint folder with a config.json, or a "
        ".gguf file. Nothing is fetched from a hub."
    )


def _load_folder(path: Path, dtype: torch.dtype | str) -> tuple[Any, Any, Any | None]:
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    shape = AutoConfig.from_pretrained(path, local_files_only=True)
    if shape.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        model = _whole(AutoModelForCausalLM, path, dtype)
        return model, AutoTokenizer.from_pretrained(path, local_files_only=True), None
    model = _whole(AutoModelForImageTextToText, path, dtype)
    processor = AutoProcessor.from_pretrained(path, local_files_only=True)
    return model, processor.tokenizer, processor


def _whole(loader: Any, path: Path, dtype: torch.dtype | str) -> Any:
    """Load a model; transformers would fill what is missing with random weights and only warn."""
    model, found = loader.from_pretrained(path, local_files_only=True, dtype=dtype, output_loading_info=True)
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{len(missing)} of its weights are missing, for example {missing[0]}.")
    return model


def _load_gguf(path: Path, dtype: torch.dtype | str) -> tuple[Any, Any]:
    try:
        import gguf  # noqa: F401  (transformers would say so less clearly)
    except ImportError as error:
        raise MachineError(
            "A .gguf model needs the package gguf: pip install 'longvila-pipeline[gguf]'"
        ) from error
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place = {"gguf_file": path.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **place)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent,
        dtype=torch.float32 if dtype == "auto" else dtype,
        quantization_config=GgufConfig(dequantize=True),
        **place,
    )
    return model, tokenizer


def _prepare(tokenizer: Any, processor: Any | None, path: Path) -> None:
    template = getattr(processor or tokenizer, "chat_template", None)
    if template is None:
        raise ConfigError(
            f"The language model {path} has no chat template: it is a base model. Name an instruct one."
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    named = model.generation_config.eos_token_id
    ids = named if isinstance(named, list) else [named]
    return frozenset(int(token) for token in [*ids, tokenizer.eos_token_id] if token is not None)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: {name!r} is no device. Use auto, cpu, cuda or cuda:1.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MachineError(f"device: {name} was asked for, but this machine has no GPU that torch can use.")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype | str:
    """The checkpoint's own on a GPU; float32 on a CPU, where half precision is slow."""
    if name == "auto":
        return "auto" if device.type == "cuda" else torch.float32
    return getattr(torch, name)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def fingerprint(path: Path) -> str:
    """Return an id of the files' names and of both ends of each: cheap, and other for other weights."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return content_id(path.name, [(file.name, file.stat().st_size, _ends(file)) for file in files])


def _ends(path: Path) -> str:
    with path.open("rb") as file:
        first = file.read(_END_BYTES)
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        return hashlib.sha256(first + file.read()).hexdigest()
