"""The tower read at a hidden state, against transformers' own forward."""

from __future__ import annotations

import pytest
import torch

from longvila.errors import ConfigError
from longvila.model.build import build_tower
from longvila.model.vision import num_layers_run, select_features, single_side, used_parameters
from tests.model.helpers import random_frames, tiny_config


@pytest.mark.parametrize("select_layer", [-1, -2, -3, 0, 1])
def test_features_are_the_hidden_state(select_layer: int) -> None:
    tower = build_tower(tiny_config().vision).eval()
    frames = random_frames(2)
    with torch.no_grad():
        expected = tower(frames, output_hidden_states=True).hidden_states[select_layer]
        torch.testing.assert_close(
            select_features(tower, frames, select_layer=select_layer), expected, rtol=0, atol=0
        )


def test_used_parameters_are_those_with_a_gradient() -> None:
    tower = build_tower(tiny_config().vision)
    select_features(tower, random_frames(1), select_layer=-2).sum().backward()
    touched = {id(parameter) for parameter in tower.parameters() if parameter.grad is not None}
    assert touched == {id(parameter) for parameter in used_parameters(tower, -2)}
    assert len(touched) < len(list(tower.parameters()))


def test_a_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="the published models use -2"):
        num_layers_run(build_tower(tiny_config().vision), -5)


def test_only_square_frames() -> None:
    assert single_side((14, 14)) == 14
    with pytest.raises(ConfigError, match="square"):
        single_side((14, 16))
