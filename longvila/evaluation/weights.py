"""Digests of a checkpoint, so that a stored answer is never taken for another model's.

A key made of a path or of arguments would answer for a checkpoint that was overwritten since. The RoPE base
counts as much as the weights do: a control may differ in nothing else.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from longvila.errors import InputError

TOWER_FOLDERS = ("vision_tower", "mm_projector")
TOWER_SETTINGS = ("mm_vision_select_layer", "mm_vision_select_feature")
SUFFIXES = {".json", ".safetensors", ".txt"}
BLOCK_BYTES = 2**20


def weight_digest(checkpoint: Path) -> str:
    """Return a hex digest of all that decides a checkpoint's answers: weights, configuration, tokenizer.

    Notes on how the weights were made do not count. Raises InputError when the folder is not a checkpoint.
    """
    config = _config(checkpoint)
    config.pop("longvila", None)
    return _digest(checkpoint, (*TOWER_FOLDERS, "llm"), config)


def tower_digest(checkpoint: Path) -> str:
    """Return a hex digest of what decides a checkpoint's visual tokens: tower, projector, the layer read."""
    config = _config(checkpoint)
    return _digest(checkpoint, TOWER_FOLDERS, {key: config.get(key) for key in TOWER_SETTINGS})


def _digest(checkpoint: Path, folders: tuple[str, ...], settings: dict[str, object]) -> str:
    files = [file for folder in folders for file in _files(checkpoint / folder)]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for file in files:
        digest.update(f"\0{file.relative_to(checkpoint).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.glob("*") if file.is_file() and file.suffix in SUFFIXES)
    if not any(file.suffix == ".safetensors" for file in files):
        raise InputError(
            f"{folder} holds no weights (*.safetensors), so {folder.parent} is not a checkpoint. "
            "Name a folder that a stage exported, with llm/, vision_tower/ and mm_projector/ in it"
        )
    return files


def _config(checkpoint: Path) -> dict[str, object]:
    try:
        return json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{checkpoint} is not a checkpoint: its config.json cannot be read ({error}). "
            "Name a folder that a stage exported, with llm/, vision_tower/ and mm_projector/ in it"
        ) from error
