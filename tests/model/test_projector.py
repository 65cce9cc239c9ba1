"""The projector against a straightforward reference, loop by loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longvila.config.model import ProjectorConfig
from longvila.errors import ConfigError
from longvila.model.projector import Projector, SpaceToDepth

WIDTH, LLM = 6, 10


def squares(features_PC: Tensor, side: int, factor: int) -> Tensor:
    """What the published code computes, token by token: zeros beyond the grid, channels row by row."""
    cells = -(-side // factor)
    tokens = []
    for row in range(cells):
        for column in range(cells):
            parts = []
            for r in range(row * factor, row * factor + factor):
                for c in range(column * factor, column * factor + factor):
                    inside = r < side and c < side
                    parts.append(features_PC[r * side + c] if inside else torch.zeros(WIDTH))
            tokens.append(torch.cat(parts))
    return torch.stack(tokens)


@pytest.mark.parametrize(("side", "factor"), [(4, 2), (5, 2), (27, 2), (6, 3), (7, 3), (8, 3)])
def test_space_to_depth_equals_the_loop(side: int, factor: int) -> None:
    features = torch.randn(2, side * side, WIDTH)
    joined = SpaceToDepth(factor)(features)
    for frame in range(2):
        torch.testing.assert_close(joined[frame], squares(features[frame], side, factor), rtol=0, atol=0)


def test_mlp_downsample_is_norm_linear_gelu_linear() -> None:
    projector = Projector(ProjectorConfig(), vision_width=WIDTH, llm_width=LLM)
    torch.nn.init.normal_(projector.layers.get_parameter("1.weight"))
    features = torch.randn(1, 25, WIDTH)
    weights = dict(projector.named_parameters())
    joined = F.layer_norm(
        squares(features[0], 5, 2), (4 * WIDTH,), weights["layers.1.weight"], weights["layers.1.bias"]
    )
    hidden = F.gelu(joined @ weights["layers.2.weight"].T + weights["layers.2.bias"])
    expected = hidden @ weights["layers.4.weight"].T + weights["layers.4.bias"]
    torch.testing.assert_close(projector(features)[0], expected)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("mlp_downsample", {"layers.1", "layers.2", "layers.4"}),
        ("mlp_downsample_3x3", {"layers.1", "layers.2", "layers.4", "layers.5", "layers.7"}),
        ("linear", {"layers"}),
    ],
)
def test_keys_and_shapes(kind: str, keys: set[str]) -> None:
    config = ProjectorConfig.model_validate({"kind": kind})
    projector = Projector(config, vision_width=WIDTH, llm_width=LLM)
    assert {name.rpartition(".")[0] for name in projector.state_dict()} == keys
    assert projector(torch.randn(3, 25, WIDTH)).shape == (3, projector.tokens_of((5, 5)), LLM)


def test_output_norm_gives_unit_scale() -> None:
    projector = Projector(ProjectorConfig(output_norm=True), vision_width=WIDTH, llm_width=LLM)
    tokens = projector(100 * torch.randn(3, 16, WIDTH))
    torch.testing.assert_close(tokens.pow(2).mean(dim=-1), torch.ones(3, 4), rtol=1e-3, atol=1e-3)


def test_published_sizes() -> None:
    """729 patches become 196 tokens, 1024 become 256 (paper's towers of 384 and 448 pixels)."""
    projector = Projector(ProjectorConfig(), vision_width=WIDTH, llm_width=LLM)
    assert projector.tokens_of((27, 27)) == 196
    assert projector.tokens_of((32, 32)) == 256


def test_patches_that_are_no_square_are_refused() -> None:
    with pytest.raises(ConfigError, match="as high as they are wide"):
        SpaceToDepth(2)(torch.randn(1, 12, WIDTH))
