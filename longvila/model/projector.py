"""The projector: from the tower's patches to visual tokens of the LLM's width.

Layers and keys are those of the published checkpoints (VILA's ``mm_projector``), so weights go both ways.
"""

# F frames, P patches of a frame, g patches per side of a square one, h rows and w columns of patches,
# C tower width, k tokens of a frame, D LLM width.

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from longvila.config.model import ProjectorConfig
from longvila.errors import ConfigError


class SpaceToDepth(nn.Module):
    """Joins each ``factor`` × ``factor`` square of patches into one token, its channels row by row.

    A grid that does not divide is padded with zeros at the bottom and on the right.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, features: Tensor) -> Tensor:
        """Return features [F, ceil(h / factor) · ceil(w / factor), factor² · C] of grids [F, h, w, C].

        Features [F, P, C] are taken as square grids.
        """
        grid = features if features.dim() == 4 else _square(features)
        height, width = grid.shape[1:3]
        grid = F.pad(grid, (0, 0, 0, -width % self.factor, 0, -height % self.factor))
        grid = grid.unflatten(1, (-1, self.factor)).unflatten(3, (-1, self.factor))
        return grid.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)


def _square(features_FPC: Tensor) -> Tensor:
    """Return features as a grid [F, g, g, C]."""
    num_patches = features_FPC.shape[1]
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        raise ConfigError(
            f"A frame gave {num_patches} patches, which are no square. "
            "Say what its grid is, use frames as high as they are wide, or the projector kind linear."
        )
    return features_FPC.unflatten(1, (side, side))


class Projector(nn.Module):
    """``mlp_downsample`` (2×2), ``mlp_downsample_3x3`` or ``linear``, optionally with an RMSNorm after it.

    The norm is not part of the published projectors. An LLM that starts from scratch needs it: without it the
    visual tokens have another scale than the word embeddings, and attention does not find them.
    """

    def __init__(self, config: ProjectorConfig, *, vision_width: int, llm_width: int) -> None:
        super().__init__()
        self.kind = config.kind
        self.downsample = config.downsample
        self.layers = _layers(config, vision_width, llm_width)
        self.norm = nn.RMSNorm(llm_width, eps=1e-6) if config.output_norm else None

    def forward(self, features_FPC: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Return visual tokens [F, k, D]; ``grid`` says how many rows and columns of patches a frame has."""
        if grid is not None and self.kind != "linear":
            features_FPC = features_FPC.unflatten(1, grid)
        tokens_FkD = self.layers(features_FPC)
        return tokens_FkD if self.norm is None else self.norm(tokens_FkD)

    def tokens_of(self, grid: tuple[int, int]) -> int:
        """How many visual tokens a frame of so many rows and columns of patches becomes."""
        if self.kind == "linear":
            return grid[0] * grid[1]
        return -(-grid[0] // self.downsample) * -(-grid[1] // self.downsample)


def _layers(config: ProjectorConfig, vision_width: int, llm_width: int) -> nn.Module:
    # The places in the Sequential are the numbers in the published keys: layers.1, layers.2, layers.4, …
    if config.kind == "linear":
        return nn.Linear(vision_width, llm_width)
    joined = config.downsample**2 * vision_width
    if config.kind == "mlp_downsample":
        return nn.Sequential(
            SpaceToDepth(2),
            nn.LayerNorm(joined),
            nn.Linear(joined, llm_width),
            nn.GELU(),
            nn.Linear(llm_width, llm_width),
        )
    return nn.Sequential(
        SpaceToDepth(3),
        nn.LayerNorm(joined),
        nn.Linear(joined, 3 * vision_width),
        nn.GELU(),
        nn.LayerNorm(3 * vision_width),
        nn.Linear(3 * vision_width, llm_width),
        nn.GELU(),
        nn.Linear(llm_width, llm_width),
    )
