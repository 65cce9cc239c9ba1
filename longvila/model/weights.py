"""Tensors on disk: safetensors only, written whole, and a digest that identifies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from longvila.errors import InputError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def save_weights(state: Mapping[str, Tensor], folder: Path, *, max_shard_size: int | str = "5GB") -> None:
    """Write tensors as one or more safetensors files, named as Hugging Face loaders expect them."""
    save_torch_state_dict(dict(state), folder, max_shard_size=max_shard_size, metadata={"format": "pt"})


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder; raise ``InputError`` naming the file that is missing or damaged."""
    state: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            state.update(load_file(path))
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"The weights {path} cannot be read: {error}. The file is cut off or damaged; copy it again."
            ) from error
    return state


def weight_files(folder: Path) -> list[Path]:
    """Return a folder's safetensors files as its index names them; raise ``InputError`` for a missing one."""
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        files = [folder / Path(name).name for name in names]
    else:
        files = [folder / SINGLE]
    for path in files:
        if not path.is_file():
            raise InputError(
                f"The checkpoint lacks {path}. Copy the whole folder again, or name another checkpoint. "
                "Weights in pickle files (.bin, .pt) are not read: convert them to safetensors."
            )
    return files


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
