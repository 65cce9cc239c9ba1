"""For Energon's users: a cooker and a task encoder for our tars. Needs the package ``megatron-energon``.

``get_train_dataset(folder, task_encoder=FramesTaskEncoder(), …)`` then gives ``FramesSample``: a start for a
task encoder of one's own, which tokenises, packs and batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from megatron.energon import Cooker, DefaultTaskEncoder, Sample, basic_sample_keys, edataclass, stateless

from longvila.media.jpeg import unpack_frames


@edataclass
class FramesSample(Sample):
    """A conversation and its frames."""

    conversations: list[dict[str, str]]
    frames_NHW3: torch.Tensor  # uint8; [0, 0, 0, 3] for text
    times_s: torch.Tensor  # float64 [N]


@stateless
def cook_frames(sample: dict[str, Any]) -> FramesSample:
    """Decode all frames of one of our samples."""
    offsets, times = sample.get("offsets.npy"), sample.get("times.npy")
    frames_NHW3 = np.zeros((0, 0, 0, 3), dtype=np.uint8)
    if offsets is not None:
        frames_NHW3 = unpack_frames(sample["frames.bin"], np.asarray(offsets), range(len(offsets) - 1))
    return FramesSample(
        **basic_sample_keys(sample),
        conversations=sample["json"]["conversations"],
        frames_NHW3=torch.from_numpy(frames_NHW3),
        times_s=torch.as_tensor(times if times is not None else [], dtype=torch.float64),
    )


class FramesTaskEncoder(DefaultTaskEncoder[FramesSample, FramesSample, FramesSample, FramesSample]):
    """Gives samples as the cooker makes them."""

    cookers = (Cooker(cook_frames),)
