"""The work: frames, tower and projector, the seats of visual tokens, and what one process makes of it."""

# F frames, P patches of a frame, k tokens per frame, M visual tokens of all frames,
# D LLM width.

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from longvila.config.model import ProjectorConfig, VisionConfig
from longvila.model.build import build_tower
from longvila.model.projector import Projector
from longvila.model.vision import select_features
from longvila.parallel import Plan, make_plan

PROMPT, SEPARATOR, ANSWER = 40, 1, 100
"""Text tokens before the frames, after each of them, and after all."""


@dataclass(frozen=True)
class EncoderShape:
    """A SigLIP-shaped tower and an mlp_downsample projector."""

    image_size: int = 112
    width: int = 192
    num_layers: int = 6
    llm_width: int = 896
    patch_size: int = 14

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        side = self.image_size // self.patch_size
        return side, side

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a frame: one for 2 × 2 patches."""
        return (-(-self.grid[0] // 2)) ** 2


class Encoder(nn.Module):
    """Tower and projector; the same weights wherever it is made."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.grid = shape.grid
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.vision_tower = build_tower(
                VisionConfig(
                    image_size=shape.image_size,
                    patch_size=shape.patch_size,
                    hidden_size=shape.width,
                    intermediate_size=4 * shape.width,
                    num_layers=shape.num_layers,
                    num_heads=max(shape.width // 64, 1),
                )
            )
            self.projector = Projector(
                ProjectorConfig(kind="mlp_downsample"), vision_width=shape.width, llm_width=shape.llm_width
            )

    def forward(self, frames_F3HW: Tensor) -> Tensor:
        """Return visual tokens [F, k, D]; a rank without frames encodes a dummy one, as the model does."""
        if not len(frames_F3HW):
            return self(frames_F3HW.new_zeros(1, *frames_F3HW.shape[1:]))[:0]
        features_FPC = select_features(self.vision_tower, frames_F3HW, select_layer=-2)
        return self.projector(features_FPC, self.grid)

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradient of each part as one vector, float64."""
        return {
            name: torch.cat(
                [weight.grad.double().flatten() for weight in part.parameters() if weight.grad is not None]
            )
            for name, part in {"tower": self.vision_tower, "projector": self.projector}.items()
        }


@dataclass(frozen=True)
class Video:
    """One document: a prompt, frames with a separator after each, an answer."""

    num_frames: int
    shape: EncoderShape = EncoderShape()

    @property
    def num_tokens(self) -> int:
        """Tokens of the document."""
        return PROMPT + self.num_frames * (self.shape.tokens_per_frame + SEPARATOR) + ANSWER

    def plan(self, ulysses_degree: int, ring_degree: int) -> Plan:
        """Divide it over ranks."""
        k = self.shape.tokens_per_frame
        return make_plan(
            [self.num_tokens],
            PROMPT + np.arange(self.num_frames) * (k + SEPARATOR),
            tokens_per_frame=k,
            ulysses_degree=ulysses_degree,
            ring_degree=ring_degree,
        )

    @cached_property
    def frames(self) -> Tensor:
        """Normalised frames [F, 3, H, W]; the same wherever they are drawn."""
        side = self.shape.image_size
        generator = torch.Generator().manual_seed(5)
        return torch.randn(self.num_frames, 3, side, side, generator=generator)

    @cached_property
    def gradients(self) -> Tensor:
        """What the LLM sends back to every visual token [M, D], frame after frame: drawn at random."""
        generator = torch.Generator().manual_seed(6)
        num_rows = self.num_frames * self.shape.tokens_per_frame
        return torch.randn(num_rows, self.shape.llm_width, generator=generator)

    @property
    def seats(self) -> Tensor:
        """The position of every visual token [M], frame after frame."""
        k = self.shape.tokens_per_frame
        first = PROMPT + torch.arange(self.num_frames) * (k + SEPARATOR)
        return (first[:, None] + torch.arange(k)).flatten()


def on_one_process(video: Video) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the visual tokens [M, D] and the gradients of the parts."""
    encoder = Encoder(video.shape)
    rows_MD = encoder(video.frames).flatten(0, 1)
    rows_MD.backward(video.gradients)
    return rows_MD.detach(), encoder.gradients()
