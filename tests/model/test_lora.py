"""Stage 4's adapters: what trains, and that what is exported is a plain LLM with the same loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from longvila.errors import ConfigError
from longvila.model import (
    LongVila,
    export_checkpoint,
    load_checkpoint,
    merge_lora,
    plain_state,
    set_trainable,
)
from longvila.model.lora import wrap_lora
from tests.model.helpers import one_process_plan, random_ids, run, tiny_model
from tests.text.tokenizers import word_tokenizer

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def adapted_model(dtype: torch.dtype = torch.float64, *, seed: int = 0) -> LongVila:
    """A model whose adapters, embeddings and norms have been trained a little."""
    model = tiny_model().to(dtype)
    set_trainable(model, ("llm",))
    wrap_lora(model, rank=4, alpha=8.0, targets=TARGETS, seed=seed)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        loss(model).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def loss(model: LongVila) -> torch.Tensor:
    plan = one_process_plan(frame_seats=())
    ids = random_ids(plan)
    logits = model.lm_head(run(model, plan, ids, None))[0]
    return F.cross_entropy(logits[:23].double(), ids[0, 1:24])


def test_adapters_start_as_nothing_and_the_seed_decides_them() -> None:
    plain, wrapped, again, other = (tiny_model() for _ in range(4))
    for model, seed in ((wrapped, 0), (again, 0), (other, 1)):
        wrap_lora(model, rank=4, alpha=8.0, targets=TARGETS, seed=seed)
    assert torch.equal(loss(plain), loss(wrapped))
    name = "llm.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert torch.equal(wrapped.get_parameter(name), again.get_parameter(name))
    assert not torch.equal(wrapped.get_parameter(name), other.get_parameter(name))


def test_adapters_embeddings_and_norms_train() -> None:
    model = tiny_model()
    set_trainable(model, ("llm",))
    wrap_lora(model, rank=4, alpha=8.0, targets=TARGETS)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "norm" in name or "embed_tokens" in name for name in trainable)
    assert sum("lora_" in name for name in trainable) == 2 * 4 * 2  # A and B, four targets, two layers
    assert {"llm.model.embed_tokens.weight", "llm.model.norm.weight"} <= trainable


def test_without_embeddings_only_adapters_train() -> None:
    model = tiny_model()
    set_trainable(model, ("llm",))
    wrap_lora(model, rank=4, alpha=8.0, targets=TARGETS, train_embeddings_and_norms=False)
    assert all("lora_" in name for name, parameter in model.named_parameters() if parameter.requires_grad)


def test_merging_keeps_the_loss_and_leaves_a_plain_llm() -> None:
    model = adapted_model()
    before = loss(model).detach()
    assert not torch.allclose(before, loss(tiny_model().double()))
    assert merge_lora(model) == 8
    torch.testing.assert_close(loss(model).detach(), before, rtol=1e-10, atol=0)
    assert model.state_dict().keys() == tiny_model().state_dict().keys()
    assert all(type(m) is nn.Linear for n, m in model.named_modules() if n.endswith(TARGETS))


def test_plain_state_equals_the_merged_model_and_changes_nothing() -> None:
    model = adapted_model(torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = plain_state(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    from_gathered = plain_state(model, dict(before))
    merge_lora(model)
    for name, value in model.state_dict().items():
        assert torch.equal(plain[name], value), name
        assert torch.equal(from_gathered[name], value), name
    assert plain.keys() == model.state_dict().keys()


def test_an_adapted_model_exports_as_a_plain_one(tmp_path: Path) -> None:
    model = adapted_model(torch.float32)
    export_checkpoint(model, word_tokenizer(), tmp_path / "out", stage_info={})
    loaded = load_checkpoint(tmp_path / "out").model
    torch.testing.assert_close(loss(loaded), loss(model), rtol=1e-5, atol=0)


def test_unknown_targets_are_named() -> None:
    with pytest.raises(ConfigError, match=r"w_qkv.*Choose from.*q_proj"):
        wrap_lora(tiny_model(), rank=4, alpha=8.0, targets=("w_qkv",))
