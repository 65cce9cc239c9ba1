"""From decoded frames to visual tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from longvila.model.module import LongVila
from longvila.model.preprocess import normalise

FRAMES_AT_ONCE = 256

# F frames, H × W pixels, k visual tokens of a frame, D LLM width.


def encode_frames(
    model: LongVila, frames_FHW3: np.ndarray, *, frames_at_once: int = FRAMES_AT_ONCE
) -> Tensor:
    """Return visual tokens [F, k, D] of uint8 frames on the model's device, some at a time."""
    weight = next(model.projector.parameters())
    if not len(frames_FHW3):
        return weight.new_zeros(0, model.tokens_per_frame, model.llm.config.hidden_size)
    parts = []
    with torch.no_grad():
        for start in range(0, len(frames_FHW3), frames_at_once):
            bytes_fHW3 = torch.from_numpy(np.ascontiguousarray(frames_FHW3[start : start + frames_at_once]))
            parts.append(model.encode_frames(normalise(bytes_fHW3.to(weight.device))))
    return torch.cat(parts)
