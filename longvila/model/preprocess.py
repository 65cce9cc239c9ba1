"""From decoded pixels to what a SigLIP tower takes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longvila.errors import InputError

MEAN = 0.5
STD = 0.5


def normalise(frames_fHW3: NDArray[np.uint8] | Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return frames [f, 3, H, W] in −1 … 1 of RGB bytes [f, H, W, 3], on the device of the bytes.

    The same as SigLIP's image processor after its resize: divided by 255, mean and deviation 0.5. Frames are
    resized where they are decoded, once, not here.
    """
    frames = (
        frames_fHW3
        if isinstance(frames_fHW3, Tensor)
        else torch.from_numpy(np.ascontiguousarray(frames_fHW3))
    )
    if frames.dtype != torch.uint8 or frames.dim() != 4 or frames.shape[-1] != 3:
        raise InputError(
            f"Frames must be uint8 [frames, height, width, 3]; got {frames.dtype} {tuple(frames.shape)}. "
            "Pass them as decode_frames or ShardReader.frames returns them."
        )
    return frames.permute(0, 3, 1, 2).to(dtype).div(255 * STD).sub(MEAN / STD).contiguous()
