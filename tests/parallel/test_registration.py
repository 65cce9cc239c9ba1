"""What transformers finds under our name, and what of its decoders and masks is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Lfm2Config,
    Lfm2ForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3NextConfig,
)
from transformers.masking_utils import (
    and_masks,
    causal_mask_function,
    chunked_causal_mask_function,
    or_masks,
    packed_sequence_mask_function,
    sliding_window_causal_mask_function,
)

from longvila.errors import ConfigError
from longvila.parallel import Groups, Layout, make_attend, make_groups, register_attention
from longvila.parallel.decoders import check_layers
from longvila.parallel.in_process import run_in_process
from longvila.parallel.masks import SlidingWindow, read_mask
from longvila.parallel.registration import mmsp_attention, window_or_nothing

TINY: dict[str, Any] = {
    "vocab_size": 17,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
IDS = torch.arange(16)[None]


def attend_as_transformers_does(**changes: Any) -> None:
    q, k, v = torch.zeros(3, 1, 2, 8, 4)
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
        ({"position_bias": torch.ones(1)}, "position_bias. Use a model whose scores are products of queries"),
        ({"alibi": torch.ones(1), "head_mask": torch.ones(1)}, "support alibi, head_mask"),
    ],
)
def test_what_is_not_supported_is_refused(change: dict[str, Any], mend: str) -> None:
    attend_as_transformers_does()
    with pytest.raises(ConfigError, match=mend):
        attend_as_transformers_does(**change)


def test_a_mask_that_hides_tokens_is_refused() -> None:
    window_or_nothing(attention_mask=torch.ones(1, 8))
    with pytest.raises(ConfigError, match=r"hides 3 tokens\. .* true lengths to make_plan"):
        window_or_nothing(attention_mask=torch.arange(8)[None] >= 3)


@pytest.mark.parametrize(
    ("mask", "read"),
    [
        (None, None),
        (causal_mask_function, None),
        (sliding_window_causal_mask_function(5), SlidingWindow(5)),
        (
            and_masks(
                sliding_window_causal_mask_function(7), packed_sequence_mask_function(torch.zeros(1, 8))
            ),
            SlidingWindow(7),
        ),
        (
            and_masks(sliding_window_causal_mask_function(9), sliding_window_causal_mask_function(3)),
            SlidingWindow(3),
        ),
    ],
)
def test_masks_that_a_layout_knows_are_read(mask: Any, read: SlidingWindow | None) -> None:
    assert read_mask(mask) == read
    assert window_or_nothing(mask_function=mask, q_length=8) == read


def only_even(_batch: int, _head: int, _q: int, kv: int) -> bool:
    return kv % 2 == 0


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        (or_masks(causal_mask_function, only_even), "or_masks"),
        (chunked_causal_mask_function(4, torch.zeros(1, dtype=torch.int64)), "chunked_overlay"),
        (and_masks(causal_mask_function, only_even), "only_even"),
    ],
)
def test_masks_that_no_layout_knows_are_refused(mask: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=f"masks attention by {named}, which .* on sdpa and on one process"):
        read_mask(mask)


def tiny_qwen(**changes: Any) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**TINY, **changes))
    register_attention()
    return model


def tiny_moe() -> Qwen2MoeForCausalLM:
    """Its layers are not told of their window: it comes as a mask only."""
    torch.manual_seed(0)
    config = Qwen2MoeConfig(
        **TINY,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        num_experts=2,
        num_experts_per_tok=1,
        use_sliding_window=True,
        sliding_window=3,
        max_window_layers=2,
    )
    return Qwen2MoeForCausalLM(config)


def on_four_ranks(model: PreTrainedModel) -> Tensor:
    """The logits of one row on 2 × 2 ranks of this process, in order."""
    layout = Layout((IDS.shape[1],), 2, 2)
    positions = [torch.from_numpy(layout.positions_of(rank)) for rank in range(4)]

    def on_rank(groups: Groups) -> Tensor:
        mine = positions[groups.sp_rank][None]
        attend = make_attend(layout, groups)
        with torch.no_grad():
            return model(IDS[:, mine[0]], position_ids=mine, use_cache=False, attend=attend).logits

    logits = run_in_process(on_rank, ulysses_degree=2, ring_degree=2)
    return torch.cat(logits, 1)[:, torch.cat(positions).argsort()]


@pytest.mark.parametrize(
    "model",
    [
        tiny_qwen(),
        tiny_qwen(use_sliding_window=True, sliding_window=5, max_window_layers=1),
        tiny_moe(),
    ],
    ids=["causal", "window", "window as a mask"],
)
def test_a_decoder_of_transformers_runs_unpatched(model: PreTrainedModel) -> None:
    model.eval()
    with torch.no_grad():
        wanted = model(IDS, use_cache=False).logits
    register_attention(model)
    register_attention(model)
    attend = make_attend(Layout((16,)), make_groups())
    found = model(IDS, use_cache=False, attend=attend).logits
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(on_four_ranks(model), wanted, rtol=1e-5, atol=1e-6)


def test_only_the_llm_of_a_model_of_several_parts_gets_it() -> None:
    model = tiny_gemma()
    register_attention(model)
    assert model.model.language_model.config._attn_implementation == "mmsp"
    assert model.model.vision_tower.config._attn_implementation == "sdpa"


def tiny_gemma() -> Gemma3ForConditionalGeneration:
    vision = TINY | {"image_size": 16, "patch_size": 8}
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=TINY, vision_config=vision))


def test_images_that_see_ahead_are_refused() -> None:
    """Gemma 3 shows a token of an image all others of that image."""
    model = tiny_gemma()
    register_attention(model)
    attend = make_attend(Layout((16,)), make_groups())
    with pytest.raises(ConfigError, match="masks attention by or_masks"):
        model(IDS, token_type_ids=torch.ones_like(IDS), use_cache=False, attend=attend)


def test_chunked_attention_is_refused() -> None:
    config = Llama4TextConfig(**TINY, head_dim=4, intermediate_size_mlp=16, attention_chunk_size=4)
    model = Llama4ForCausalLM(config)
    register_attention(model)
    with pytest.raises(ConfigError, match="masks attention by chunked_overlay"):
        model(IDS, use_cache=False, attend=make_attend(Layout((16,)), make_groups()))


def test_layers_that_are_not_attention_are_refused() -> None:
    """A rank would mix its own tokens only, and packed documents with each other."""
    model = Lfm2ForCausalLM(Lfm2Config(**TINY, layer_types=["conv", "full_attention"], block_ff_dim=16))
    said = r"layers of Lfm2Config mix tokens by conv, not by attention alone\. .*Use a decoder of attention"
    with pytest.raises(ConfigError, match=said):
        register_attention(model)
    model.set_attn_implementation("mmsp")  # by hand
    with pytest.raises(ConfigError, match=said):
        model(IDS, use_cache=False, attend=make_attend(Layout((16,)), make_groups()))
    with pytest.raises(ConfigError, match="mix tokens by linear_attention"):
        check_layers(Qwen3NextConfig(num_hidden_layers=4))


def test_a_model_with_attention_of_its_own_is_refused() -> None:
    model = FalconForCausalLM(
        FalconConfig(vocab_size=17, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ConfigError, match="FalconForCausalLM does not use transformers' attention interface"):
        register_attention(model)


def test_attention_dropout_of_a_config_is_refused_in_training() -> None:
    model = tiny_qwen(attention_dropout=0.1).train()
    register_attention(model)
    with pytest.raises(ConfigError, match="Set attention_dropout=0 in the model's config"):
        model(input_ids=torch.zeros(1, 4, dtype=torch.int64), attend=make_attend(Layout((4,)), make_groups()))


def test_a_padded_batch_is_refused() -> None:
    model = tiny_qwen().eval()
    register_attention(model)
    mask = torch.tensor([[0, 1, 1, 1]])
    with pytest.raises(ConfigError, match="hides 1 tokens"):
        model(
            input_ids=torch.zeros(1, 4, dtype=torch.int64),
            attention_mask=mask,
            use_cache=False,
            attend=make_attend(Layout((4,)), make_groups()),
        )
