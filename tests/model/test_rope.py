"""Raising the RoPE base: config, buffers and output change together."""

from __future__ import annotations

import pytest
import torch

from longvila.errors import ConfigError
from longvila.model import rope_theta, set_rope_theta
from longvila.model.rope import rebuild_rotary
from tests.model.helpers import one_process_plan, random_frames, random_ids, run, tiny_model


def frequencies(model: torch.nn.Module) -> torch.Tensor:
    return model.get_submodule("llm.model.rotary_emb").get_buffer("inv_freq")


def test_theta_changes_config_buffers_and_output() -> None:
    model, plan = tiny_model(), one_process_plan()
    ids, frames = random_ids(plan), random_frames(2)
    with torch.no_grad():
        for name, weight in model.llm.named_parameters():
            weight.mul_(20 if "q_proj" in name or "k_proj" in name else 1)  # attention that looks somewhere
        before, turns = run(model, plan, ids, frames), frequencies(model).clone()
        set_rope_theta(model, 6400.0, 4096)
        after = run(model, plan, ids, frames)
    assert rope_theta(model.llm) == 6400.0
    assert model.llm.config.max_position_embeddings == 4096
    head_dim = 8
    expected = 6400.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
    torch.testing.assert_close(frequencies(model), expected)
    assert not torch.allclose(frequencies(model), turns)
    torch.testing.assert_close(after[:, 0], before[:, 0])  # the first position is not turned
    assert not torch.allclose(after[:, 20], before[:, 20], atol=1e-2)


def test_none_leaves_each_as_it_is() -> None:
    model = tiny_model()
    set_rope_theta(model, None, 128)
    assert (rope_theta(model.llm), model.llm.config.max_position_embeddings) == (100.0, 128)
    set_rope_theta(model.llm, 200.0)
    assert (rope_theta(model.llm), model.llm.config.max_position_embeddings) == (200.0, 128)


def test_frequencies_stay_exact_when_an_engine_casts_the_model() -> None:
    model, plan = tiny_model(), one_process_plan()
    exact = frequencies(model).clone()
    model.bfloat16()
    assert not torch.equal(frequencies(model).float(), exact)
    run(model, plan, random_ids(plan), random_frames(2))
    assert torch.equal(frequencies(model), exact)


def test_linear_scaling_of_published_models_is_kept() -> None:
    model = tiny_model()
    model.llm.config.rope_parameters = {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}
    rebuild_rotary(model.llm)
    plain = tiny_model()
    torch.testing.assert_close(frequencies(model) * 4, frequencies(plain))
    set_rope_theta(model, 400.0)
    assert model.llm.config.rope_parameters == {"rope_type": "linear", "rope_theta": 400.0, "factor": 4.0}


def test_an_llm_without_one_base_is_refused() -> None:
    model = tiny_model()
    model.llm.config.rope_parameters = {"full_attention": {"rope_theta": 1.0}}
    with pytest.raises(ConfigError, match="Leave the stage's rope_theta out"):
        set_rope_theta(model, 400.0)
