from __future__ import annotations

import pytest

from longvila.config.stage import LoraConfig, OptimizerConfig
from longvila.errors import ConfigError
from longvila.model import build_model, rope_theta
from longvila.training.stages import learning_rates, parameter_groups, prepare, schedule_factor
from tests.training import tiny


def _trained(**changes: object) -> set[str]:
    model = build_model(tiny.MODEL, vocab_size=16, seed=0)
    prepare(model, tiny.stage(**changes))
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_stage_trains_what_it_names() -> None:
    assert {name.split(".")[0] for name in _trained(trains=("projector",))} == {"projector"}
    assert {name.split(".")[0] for name in _trained(trains=("projector", "llm"))} == {"projector", "llm"}


def test_layers_of_the_tower_that_take_no_part_do_not_train() -> None:
    trained = _trained(trains=("vision_tower",))
    assert any("layers.1." in name for name in trained)
    assert not any("post_layernorm" in name for name in trained)


def test_lora_trains_adapters_embeddings_and_norms() -> None:
    trained = _trained(trains=("llm",), lora=LoraConfig(rank=2))
    assert any("q_proj.lora_A" in name for name in trained)
    assert any("embed_tokens" in name for name in trained)
    assert any("input_layernorm" in name for name in trained)
    assert not any("base_layer" in name or "mlp" in name for name in trained)


def test_lora_targets_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match="Choose from"):
        _trained(trains=("llm",), lora=LoraConfig(targets=("query",)))


def test_rope_is_raised() -> None:
    model = build_model(tiny.MODEL, vocab_size=16, seed=0)
    prepare(model, tiny.stage(rope_theta=6400.0, max_context=4096))
    assert rope_theta(model.llm) == 6400.0
    assert model.llm.config.max_position_embeddings == 4096


def test_groups_have_their_parts_learning_rate_and_vectors_do_not_decay() -> None:
    model = build_model(tiny.MODEL, vocab_size=16, seed=0)
    prepare(model, tiny.stage())
    optimizer = OptimizerConfig(
        learning_rate=1e-3, part_learning_rates={"vision_tower": 1e-4}, weight_decay=0.1
    )
    groups = parameter_groups(model, optimizer)
    seen = {(group["lr"], group["weight_decay"]) for group in groups}
    assert seen == {(1e-3, 0.0), (1e-3, 0.1), (1e-4, 0.0), (1e-4, 0.1)}
    for group in groups:
        assert all((parameter.ndim >= 2) == (group["weight_decay"] > 0) for parameter in group["params"])
    counted = sum(parameter.numel() for group in groups for parameter in group["params"])
    assert counted == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_nothing_to_train_is_refused() -> None:
    model = build_model(tiny.MODEL, vocab_size=16, seed=0)
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="Name at least one"):
        parameter_groups(model, OptimizerConfig(learning_rate=1.0))


def test_the_schedule_warms_up_and_falls() -> None:
    cosine = OptimizerConfig(learning_rate=2.0, warmup_ratio=0.2)
    factors = [schedule_factor(step, total_steps=10, optimizer=cosine) for step in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert 0 < factors[-1] < 0.05
    constant = OptimizerConfig(learning_rate=2.0, warmup_ratio=0.0, schedule="constant")
    assert learning_rates(9, base=[2.0, 0.5], total_steps=10, optimizer=constant) == [2.0, 0.5]
