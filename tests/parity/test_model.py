"""Hugging Face decoders on many ranks against transformers' own attention on one process, float64.

The loss and the gradient of every parameter, for decoders of several families, with both kinds of gradient
checkpointing, with LoRA, compiled, and with the switches that save memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from longvila.parallel import (
    IGNORE_INDEX,
    chunked_cross_entropy,
    enable_checkpointing,
    follow_documents,
    for_data_parallel,
    make_attend,
    make_groups,
    make_plan,
    register_attention,
    shift_labels,
    tile_tokens,
)
from tests.distributed import run_ranks
from tests.parity.models import CloningHost, gradients, largest_error, with_exact_norms

LENGTHS = (37, 5, 1, 26, 18)
VOCABULARY = 29
TOLERANCE = 1e-8
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
LINEAR = {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 100.0,
    "short_factor": [1.0, 1.5],
    "long_factor": [2.0, 9.0],
    "original_max_position_embeddings": 20,
    "factor": 2.0,
}
DECODERS: dict[str, PretrainedConfig] = {
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE, head_dim=8),
    "llama": LlamaConfig(**SHAPE),
    "mistral, window": MistralConfig(**SHAPE, head_dim=4, sliding_window=7),
    "gemma3, window": Gemma3TextConfig(**SHAPE, head_dim=4, sliding_window=9, pad_token_id=0),
    "gpt-oss, sinks and window": GptOssConfig(
        **SHAPE, head_dim=4, sliding_window=9, num_local_experts=4, num_experts_per_tok=2
    ),
    "linear RoPE": LlamaConfig(**SHAPE, rope_parameters=LINEAR),
    "yarn": LlamaConfig(**SHAPE, rope_parameters=YARN, max_position_embeddings=64),
    "dynamic RoPE": LlamaConfig(**SHAPE, rope_parameters=DYNAMIC, max_position_embeddings=16),
    "longrope": Qwen2Config(**SHAPE, rope_parameters=LONGROPE, max_position_embeddings=64),
}


@dataclass(frozen=True)
class Case:
    """One decoder, and what is done with it."""

    decoder: str = "qwen2"
    checkpointing: str = ""
    lora: bool = False
    compiled: bool = False
    tiles: int = 0


def make_model(case: Case, attention: str) -> PreTrainedModel:
    """A tiny decoder in float64."""
    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_config(
        DECODERS[case.decoder], dtype=torch.float64, experts_implementation="eager"
    )
    model.set_attn_implementation(attention)
    with_exact_norms(model)
    if case.lora:
        settings = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
        inject_adapter_in_model(settings, model)
    return model.train()


def make_tokens() -> tuple[Tensor, Tensor]:
    """Ids and labels (not shifted) of the whole row; a third of the tokens is not scored."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(VOCABULARY, (sum(LENGTHS),), generator=generator)
    return ids, ids.masked_fill(torch.rand(len(ids), generator=generator) < 0.3, IGNORE_INDEX)


def on_one_process(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean loss over all scored tokens, each document by itself, and its gradients."""
    total: dict[str, Tensor] = {}
    losses, counts = [], 0
    ids, labels = make_tokens()
    scored = int((shift_labels(labels, make_plan(LENGTHS).layout.cu_seqlens) != IGNORE_INDEX).sum())
    for document, wanted in zip(ids.split(LENGTHS), labels.split(LENGTHS), strict=True):
        # A new one for each: RoPE remembers the longest document. Others' eager attention rounds to float32.
        model = make_model(case, "eager" if "sinks" in case.decoder else "sdpa")
        logits = model(input_ids=document[None], use_cache=False).logits[0]
        loss = nn.functional.cross_entropy(logits[:-1], wanted[1:], reduction="sum") / scored
        loss.backward()
        losses.append(loss.detach())
        counts += int((wanted[1:] != IGNORE_INDEX).sum())
        for name, gradient in gradients(model).items():
            total[name] = total.get(name, 0) + gradient
    assert counts == scored
    return torch.stack(losses).sum(), total


def prepare(model: PreTrainedModel, case: Case) -> None:
    if case.tiles:
        tile_tokens(model, case.tiles)
    if case.checkpointing == "reentrant":
        model.gradient_checkpointing_enable({"use_reentrant": True})
    elif case.checkpointing:
        host = CloningHost() if case.checkpointing == "host" else None
        enable_checkpointing(model, keep=case.checkpointing != "twice", host=host)
    follow_documents(model)


def on_rank(
    _rank: int, ulysses_degree: int, ring_degree: int, cases: list[Case]
) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """The rank's scaled loss and the gradients averaged over the world, as an engine would."""
    register_attention()
    return [case_on_rank(case, ulysses_degree, ring_degree) for case in cases]


def case_on_rank(case: Case, ulysses_degree: int, ring_degree: int) -> tuple[Tensor, dict[str, Tensor]]:
    groups = make_groups(ulysses_degree=ulysses_degree, ring_degree=ring_degree)
    model = make_model(case, "mmsp")
    prepare(model, case)
    layout = make_plan(LENGTHS, ulysses_degree=ulysses_degree, ring_degree=ring_degree).layout
    positions = torch.from_numpy(layout.positions_of(groups.sp_rank))
    ids, labels = make_tokens()
    shifted = shift_labels(labels, layout.cu_seqlens)
    padding = (0, layout.padded_length - layout.num_tokens)
    local_labels = nn.functional.pad(shifted, padding, value=IGNORE_INDEX)[positions]
    body = model.get_submodule("model")
    run = torch.compile(body, backend="aot_eager") if case.compiled else body
    hidden = run(
        input_ids=nn.functional.pad(ids, padding)[positions][None],
        position_ids=torch.from_numpy(layout.position_ids())[positions][None],
        use_cache=False,
        attend=make_attend(layout, groups),
    ).last_hidden_state
    loss = chunked_cross_entropy(hidden[0], local_labels, model.get_output_embeddings(), chunk=7)
    total = int((shifted != IGNORE_INDEX).sum())
    scaled = for_data_parallel(loss.loss_sum, total_scored=total, world_size=groups.world_size)
    scaled.backward()
    mean = {
        name: groups.world.all_reduce(grad) / groups.world_size for name, grad in gradients(model).items()
    }
    return scaled.detach() / groups.world_size, mean


def assert_equal(cases: list[Case], ulysses_degree: int, ring_degree: int, *, timeout_s: float = 60) -> None:
    world = ulysses_degree * ring_degree
    results = run_ranks(on_rank, world, ulysses_degree, ring_degree, cases, timeout_s=timeout_s)
    for number, case in enumerate(cases):
        wanted_loss, wanted = on_one_process(case)
        loss = torch.stack([result[number][0] for result in results]).sum()
        assert abs(loss - wanted_loss) <= TOLERANCE * abs(wanted_loss), case
        for result in results:
            error, name = largest_error(result[number][1], wanted)
            assert error <= TOLERANCE, (case, name)


@pytest.mark.parametrize(
    ("ulysses_degree", "ring_degree"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 2), (2, 4)]
)
def test_loss_and_every_gradient_equal_one_process(ulysses_degree: int, ring_degree: int) -> None:
    assert_equal([Case(), Case(checkpointing="keep")], ulysses_degree, ring_degree)


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoders_of_transformers_run_unpatched(decoder: str) -> None:
    assert_equal([Case(decoder), Case(decoder, checkpointing="keep", tiles=2)], 2, 2)


@pytest.mark.parametrize("checkpointing", ["keep", "twice", "host", "reentrant"])
def test_every_kind_of_checkpointing_with_and_without_lora(checkpointing: str) -> None:
    assert_equal([Case(checkpointing=checkpointing), Case(checkpointing=checkpointing, lora=True)], 2, 2)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler
def test_a_compiled_model_trains_the_same() -> None:
    assert_equal([Case(compiled=True), Case("gpt-oss, sinks and window", compiled=True)], 2, 1, timeout_s=200)
