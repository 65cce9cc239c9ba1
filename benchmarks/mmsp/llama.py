"""A tiny Llama over many ranks end to end, ours beside DeepSpeed's ALST: same weights, same tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.harness import interleaved
from benchmarks.mmsp.measure import Sample, timed
from benchmarks.mmsp.schemes import World, two_d
from benchmarks.nodes import Nodes
from benchmarks.peers import alst
from longvila.parallel import IGNORE_INDEX, Layout, make_attend, register_attention, shift_labels

log = logging.getLogger(__name__)
VOCABULARY, LAYERS = 512, 2


class LlamaCase(NamedTuple):
    """The model's heads, the row's length, and how often it is timed."""

    num_heads: int
    num_kv_heads: int
    num_tokens: int
    repeats: int


class LlamaMeasured(NamedTuple):
    """What one rank knows of one system."""

    losses: dict[str, float]  # this rank's share of the mean loss, float32
    gradients: dict[str, dict[str, Tensor]]  # this rank's share of every gradient, float32
    samples: dict[str, list[Sample]]  # bfloat16
    node: int


def make_llama(case: LlamaCase, attention: str) -> LlamaForCausalLM:
    """Build the model; the same weights wherever it is called."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=8 * case.num_heads,
        intermediate_size=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=case.num_heads,
        num_key_value_heads=case.num_kv_heads,
        head_dim=64,
    )
    config._attn_implementation = attention
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).train()


def make_tokens(case: LlamaCase) -> tuple[Tensor, Tensor]:
    """Return ids and shifted labels of one document."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (case.num_tokens,), generator=generator)
    return ids, shift_labels(ids, [0, case.num_tokens])


def llama_on_one_process(case: LlamaCase) -> tuple[float, dict[str, Tensor]]:
    """Return the mean loss and its gradients."""
    model = make_llama(case, "sdpa")
    positions = torch.arange(case.num_tokens)
    loss = _loss(model, case, positions, {})
    loss.backward()
    return float(loss.detach()), _gradients(model)


def on_rank(rank: int, num_ranks: int, nodes: Nodes, case: LlamaCase) -> LlamaMeasured:
    """Compare loss and gradients in float32, and take the times in bfloat16."""
    world = World(rank, num_ranks, nodes)
    ours, theirs = _ours(world, case), _alst(world, case)
    losses, gradients = {}, {}
    for name, (model, run) in {"ours": ours, "alst": theirs}.items():
        losses[name] = float(run().detach())
        gradients[name] = _gradients(model)
        model.to(torch.bfloat16)
    if rank == 0:
        log.info("tiny Llama: %d rounds", case.repeats)
    runs = {name: partial(timed, world, run) for name, (_, run) in {"ours": ours, "alst": theirs}.items()}
    return LlamaMeasured(losses, gradients, interleaved(runs, repeats=case.repeats), world.node)


System = tuple[nn.Module, Callable[[], Tensor]]


def _ours(world: World, case: LlamaCase) -> System:
    register_attention()
    degrees = two_d(world)
    layout = Layout((case.num_tokens,), *degrees)
    model = make_llama(case, "mmsp")
    attend = make_attend(layout, world.groups(degrees))
    positions = torch.from_numpy(layout.positions_of(world.rank))
    return model, partial(_forward_backward, model, case, positions, {"attend": attend})


def _alst(world: World, case: LlamaCase) -> System:
    model = make_llama(case, "sdpa")
    alst.register(model, world.num_ranks)
    positions = torch.arange(case.num_tokens).chunk(world.num_ranks)[world.rank]
    return model, partial(_forward_backward, model, case, positions, {})


def _forward_backward(
    model: PreTrainedModel, case: LlamaCase, positions: Tensor, given: dict[str, object]
) -> Tensor:
    model.zero_grad()
    loss = _loss(model, case, positions, given)
    loss.backward()
    return loss


def _loss(model: PreTrainedModel, case: LlamaCase, positions: Tensor, given: dict[str, object]) -> Tensor:
    """Return the share of some positions in the mean loss."""
    ids, labels = make_tokens(case)
    logits = model(
        input_ids=ids[None, positions], position_ids=positions[None], use_cache=False, **given
    ).logits[0]
    total = F.cross_entropy(logits.float(), labels[positions], ignore_index=IGNORE_INDEX, reduction="sum")
    return total / int((labels != IGNORE_INDEX).sum())


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
