"""What attention refuses, and that transformers finds it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from longvila.errors import ConfigError
from longvila.parallel import Layout, make_attend, make_groups, make_plan, register_attention
from longvila.parallel.attention import mmsp_attention, no_mask


def qkv(tokens: int = 8, *, batch: int = 1, head_size: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    shape = (batch, 2, tokens, head_size)
    return torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)


def attend_as_transformers_does(**changes: Any) -> None:
    q, k, v = qkv()
    arguments = {"attend": make_attend(Layout((8,)), make_groups()), "attention_mask": None, **changes}
    mmsp_attention(nn.Identity(), q, k, v, **arguments)


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        ({"attend": None}, r"call the model with attend=longvila\.parallel\.make_attend"),
        ({"dropout": 0.1}, r"attention_dropout=0\.1\. Set attention_dropout=0"),
        ({"attention_mask": torch.ones(1, 1, 8, 8)}, r"shape \(1, 1, 8, 8\)\. Leave attention_mask out"),
        ({"softcap": 30.0}, "without score capping"),
        ({"is_causal": False}, "Keep this part of the model on sdpa"),
    ],
)
def test_what_is_not_supported_is_refused(change: dict[str, Any], mend: str) -> None:
    attend_as_transformers_does()
    with pytest.raises(ConfigError, match=mend):
        attend_as_transformers_does(**change)


def test_a_mask_that_hides_tokens_is_refused() -> None:
    no_mask(attention_mask=torch.ones(1, 8))
    with pytest.raises(ConfigError, match=r"hides 3 tokens\. .* true lengths to make_plan"):
        no_mask(attention_mask=torch.arange(8)[None] >= 3)


@pytest.mark.parametrize(
    ("inputs", "mend"),
    [
        (qkv(batch=2), "Pack the documents into one row"),
        (qkv(6), r"every rank 8 of 8 positions.*use_cache=False"),
        ((qkv()[0], qkv(head_size=6)[1], qkv(head_size=6)[2]), "one head size for all three"),
    ],
)
def test_inputs_that_do_not_fit_the_plan_are_refused(
    inputs: tuple[Tensor, Tensor, Tensor], mend: str
) -> None:
    attend = make_attend(make_plan((7,)), make_groups())
    with pytest.raises(ConfigError, match=mend):
        attend(*inputs, scale=1.0)


def test_a_plan_for_other_degrees_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"= \(2, 1\), the groups for \(1, 1\)\. Make both"):
        make_attend(Layout((8,), 2, 1), make_groups())


def test_more_head_groups_than_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"head_groups=3 .* Use at most 2"):
        make_attend(Layout((8,)), make_groups(), head_groups=3)(*qkv(), scale=1.0)


def tiny_qwen(**changes: Any) -> Qwen2ForCausalLM:
    register_attention()
    register_attention()
    config = Qwen2Config(
        vocab_size=17,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **changes,
    )
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config)


@pytest.mark.parametrize(
    "changes", [{}, {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}]
)
def test_a_decoder_of_transformers_runs_unpatched(changes: dict[str, Any]) -> None:
    model = tiny_qwen(**changes).eval()
    ids = torch.arange(12)[None] % 17
    wanted = model(input_ids=ids, use_cache=False).logits
    model.set_attn_implementation("mmsp")
    found = model(input_ids=ids, use_cache=False, attend=make_attend(Layout((12,)), make_groups())).logits
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_attention_dropout_of_a_config_is_refused_in_training() -> None:
    model = tiny_qwen(attention_dropout=0.1).train()
    model.set_attn_implementation("mmsp")
    with pytest.raises(ConfigError, match="Set attention_dropout=0 in the model's config"):
        model(input_ids=torch.zeros(1, 4, dtype=torch.int64), attend=make_attend(Layout((4,)), make_groups()))


def test_a_padded_batch_is_refused() -> None:
    model = tiny_qwen().eval()
    model.set_attn_implementation("mmsp")
    mask = torch.tensor([[0, 1, 1, 1]])
    with pytest.raises(ConfigError, match="hides 1 tokens"):
        model(
            input_ids=torch.zeros(1, 4, dtype=torch.int64),
            attention_mask=mask,
            use_cache=False,
            attend=make_attend(Layout((4,)), make_groups()),
        )


@pytest.mark.parametrize("lengths", [(300,), (40, 30, 1, 200), (3000,)])
def test_half_precision_stays_near_float64(lengths: tuple[int, ...]) -> None:
    layout = Layout(lengths)
    attend = make_attend(layout, make_groups())
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 4, layout.local_length, 16, generator=generator).double() for _ in range(3))
    exact = attend(q, k, v, scale=0.25)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        found = attend(q.to(dtype), k.to(dtype), v.to(dtype), scale=0.25)
        assert found.dtype == dtype
        assert (found.double() - exact).abs().max() < tolerance


def test_rotated_queries_in_float32_follow_the_values_dtype() -> None:
    """Under autocast, rotary embeddings may leave q and k in float32 beside half-precision values."""
    q, k, v = qkv()
    out = make_attend(Layout((8,)), make_groups())(q, k, v.bfloat16(), scale=1.0)
    assert out.dtype == torch.bfloat16
