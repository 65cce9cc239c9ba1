"""One forward and backward pass of a decoder over one row, with chosen switches for memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers import Qwen2ForCausalLM

from benchmarks.gpu import alst
from benchmarks.gpu.made_up import made_up_groups
from benchmarks.gpu.meter import Meter, Peak
from benchmarks.gpu.models import Shape, make_decoder
from longvila.parallel import (
    HostMemory,
    Layout,
    chunked_cross_entropy,
    enable_checkpointing,
    make_attend,
    register_attention,
    tile_tokens,
)


@dataclass(frozen=True)
class Switches:
    """How a decoder is run. The defaults are plain transformers with gradient checkpointing."""

    ours: bool = False  # attention of longvila.parallel, its results kept by checkpointing
    chunked_loss: bool = False
    keep: bool = True
    offload: bool = False
    tiles: int = 0
    head_groups: int = 0
    checkpointing: bool = True
    alst: bool = False  # DeepSpeed's tiled MLP and loss instead of ours


@dataclass(frozen=True)
class Run:
    """One rank's share of a row of ``tokens`` over (ulysses, ring) ranks; the others are made up."""

    shape: Shape
    tokens: int
    switches: Switches
    layers: int
    degrees: tuple[int, int] = (1, 1)
    lora: bool = False


def measure(run: Run, meter: Meter) -> Peak | None:
    """Run a step under a meter."""
    return meter.run(lambda: build(run, meter.device), lambda model, host: step(model, run, host))


def build(run: Run, device: torch.device) -> Qwen2ForCausalLM:
    """Build the decoder. Its gradients are dropped as soon as they are there, as sharding engines do."""
    register_attention()
    attention = "mmsp" if run.switches.ours else "sdpa"
    model = make_decoder(run.shape, layers=run.layers, attention=attention, lora=run.lora, device=device)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_drop_gradient)
    return model


def step(model: Qwen2ForCausalLM, run: Run, host: HostMemory) -> None:
    """Go forward and backward once."""
    switches, device = run.switches, model.device
    if switches.checkpointing:
        keep = switches.ours and switches.keep
        enable_checkpointing(model, keep=keep, host=host if switches.offload else None)
    if switches.alst:
        alst.tile_mlps(model)
    if switches.tiles:
        tile_tokens(model, switches.tiles)
    layout = Layout((run.tokens,), *run.degrees)
    ids = torch.randint(run.shape.vocabulary, (1, layout.local_length), device=device)
    kwargs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if switches.ours:
        kwargs["position_ids"] = torch.arange(layout.local_length, device=device)[None]
        kwargs["attend"] = make_attend(layout, made_up_groups(*run.degrees), head_groups=switches.head_groups)
    else:  # transformers would make a t x t mask of fake tensors, and of no others
        kwargs["attention_mask"] = {"full_attention": None}
    if not switches.chunked_loss:
        model(**kwargs, labels=ids).loss.backward()
        return
    _chunked(model, kwargs, ids[0], use_alst=switches.alst).backward()


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _chunked(
    model: nn.Module, kwargs: dict[str, Any], labels: torch.Tensor, *, use_alst: bool
) -> torch.Tensor:
    """Return the summed loss; hidden states are not held here, so that they are free when they can be."""
    hidden = model.get_submodule("model")(**kwargs).last_hidden_state[0]
    if use_alst and not isinstance(hidden, FakeTensor):  # it looks at numbers, which fake tensors do not have
        return alst.loss(hidden, labels, model.get_submodule("lm_head"))
    everything = torch.arange(len(labels), device=labels.device)
    head = model.get_submodule("lm_head")
    return chunked_cross_entropy(hidden, labels, head, chunk=4096, scored=everything).loss_sum
