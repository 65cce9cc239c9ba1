"""Visual tokens of frames, each encoded once and used by every question that shows the frame."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from longvila.inference.features import encode_frames
from longvila.model.module import LongVila
from longvila.storage.files import atomic_path

# F frames, k visual tokens of a frame, D LLM width.


class FeatureCache:
    """Visual tokens on disk, keyed by the tower's digest and the frames' own bytes.

    Stages that freeze the tower share them. ``folder`` none turns it off.
    """

    def __init__(self, folder: Path | None, *, tower_digest: str) -> None:
        self.folder = folder
        self.tower_digest = tower_digest

    def encode(self, model: LongVila, frames_FHW3: np.ndarray) -> Tensor:
        """Return visual tokens [F, k, D], from the disk where they are there."""
        if self.folder is None:
            return encode_frames(model, frames_FHW3)
        weight = next(model.projector.parameters())
        path = self.folder / f"{self._key(frames_FHW3, weight.dtype)}.safetensors"
        if path.is_file():
            return load_file(path)["features"].to(weight.device)
        features_FkD = encode_frames(model, frames_FHW3)
        with atomic_path(path) as part:
            save_file({"features": features_FkD.cpu().contiguous()}, part)
        return features_FkD

    def _key(self, frames_FHW3: np.ndarray, dtype: torch.dtype) -> str:
        digest = hashlib.sha256(f"{self.tower_digest} {frames_FHW3.shape} {dtype}".encode())
        digest.update(np.ascontiguousarray(frames_FHW3).data)
        return digest.hexdigest()[:32]
