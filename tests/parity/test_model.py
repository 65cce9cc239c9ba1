"""A Hugging Face decoder on many ranks against plain sdpa on one process: loss and every gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from longvila.parallel import (
    IGNORE_INDEX,
    chunked_cross_entropy,
    enable_checkpointing,
    for_data_parallel,
    make_attend,
    make_groups,
    make_plan,
    register_attention,
    shift_labels,
)
from tests.distributed import run_ranks
from tests.parity.models import gradients, largest_error, with_exact_norms

LENGTHS = (37, 5, 1, 26, 18)
VOCABULARY = 29
TOLERANCE = 1e-8


def make_model(attention: str) -> Qwen2ForCausalLM:
    """A tiny Qwen2 in float64."""
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
    )
    torch.manual_seed(11)
    model = Qwen2ForCausalLM(config).double()
    model.set_attn_implementation(attention)
    with_exact_norms(model)
    return model.train()


def make_tokens() -> tuple[Tensor, Tensor]:
    """Ids and labels (not shifted) of the whole row; a third of the tokens is not scored."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(VOCABULARY, (sum(LENGTHS),), generator=generator)
    return ids, ids.masked_fill(torch.rand(len(ids), generator=generator) < 0.3, IGNORE_INDEX)


def on_one_process() -> tuple[Tensor, dict[str, Tensor]]:
    """The mean loss over all scored tokens, document by document, with sdpa."""
    model = make_model("sdpa")
    losses, counts = [], 0
    ids, labels = make_tokens()
    for document, wanted in zip(ids.split(LENGTHS), labels.split(LENGTHS), strict=True):
        logits = model(input_ids=document[None], use_cache=False).logits[0]
        losses.append(nn.functional.cross_entropy(logits[:-1], wanted[1:], reduction="sum"))
        counts += int((wanted[1:] != IGNORE_INDEX).sum())
    loss = torch.stack(losses).sum() / counts
    loss.backward()
    return loss.detach(), gradients(model)


def on_rank(
    _rank: int, ulysses_degree: int, ring_degree: int, checkpointing: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The rank's scaled loss and the gradients averaged over the world, as an engine would."""
    register_attention()
    groups = make_groups(ulysses_degree=ulysses_degree, ring_degree=ring_degree)
    model = make_model("mmsp")
    if checkpointing:
        enable_checkpointing(model)
    layout = make_plan(LENGTHS, ulysses_degree=ulysses_degree, ring_degree=ring_degree).layout
    positions = torch.from_numpy(layout.positions_of(groups.sp_rank))
    ids, labels = make_tokens()
    shifted = shift_labels(labels, layout.cu_seqlens)
    padding = (0, layout.padded_length - layout.num_tokens)
    local_ids = nn.functional.pad(ids, padding)[positions]
    local_labels = nn.functional.pad(shifted, padding, value=IGNORE_INDEX)[positions]
    hidden = model.model(
        input_ids=local_ids[None],
        position_ids=torch.from_numpy(layout.position_ids())[positions][None],
        use_cache=False,
        attend=make_attend(layout, groups),
    ).last_hidden_state
    loss = chunked_cross_entropy(hidden[0], local_labels, model.lm_head, chunk=7)
    total = int((shifted != IGNORE_INDEX).sum())
    scaled = for_data_parallel(loss.loss_sum, total_scored=total, world_size=groups.world_size)
    scaled.backward()
    mean = {
        name: groups.world.all_reduce(grad) / groups.world_size for name, grad in gradients(model).items()
    }
    return scaled.detach() / groups.world_size, mean


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("ulysses_degree", "ring_degree"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)])
def test_loss_and_every_gradient_equal_one_process(
    ulysses_degree: int, ring_degree: int, checkpointing: bool
) -> None:
    wanted_loss, wanted = on_one_process()
    results = run_ranks(on_rank, ulysses_degree * ring_degree, ulysses_degree, ring_degree, checkpointing)
    loss = torch.stack([loss for loss, _ in results]).sum()
    assert abs(loss - wanted_loss) <= TOLERANCE * abs(wanted_loss)
    for _, found in results:
        error, name = largest_error(found, wanted)
        assert error <= TOLERANCE, name
