"""DeepSpeed ALST's switches for memory on one device: its tiled MLP and its tiled logits and loss.

(Its attention over several ranks is measured elsewhere.) Norms are not tiled, and there are as many tiles as
its documentation takes, tokens ÷ width; with fake tensors, of which each tile takes time, at most 16.
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F


def tile_mlps(model: nn.Module) -> None:
    """Let the MLPs of a Llama-like decoder go through DeepSpeed's TiledMLP."""
    for module in list(model.modules()):
        if hasattr(module, "gate_proj"):
            kind = type(module)
            module.__class__ = type(f"Alst{kind.__name__}", (_AlstMlp, kind), {})


def loss(hidden: Tensor, labels: Tensor, head: nn.Module) -> Tensor:
    """Return the summed cross entropy by DeepSpeed's TiledFusedLogitsLoss."""
    parts = _deepspeed()
    vocabulary = head.get_parameter("weight").shape[0]
    shards = max(math.ceil(len(labels) * vocabulary * 4 / 2**30), 1)  # about a gibibyte of logits each
    compute = [head.get_parameter("weight")]

    def of_tile(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits = module(x).float().view(-1, vocabulary)
        return F.cross_entropy(logits, y.view(-1), reduction="sum")

    given = (of_tile, head, hidden[None], labels[None], None, shards, compute, "sum")
    return parts.TiledFusedLogitsLoss.apply(*given)


class _AlstMlp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        whole: Any = super().forward
        shards = math.ceil(x.shape[1] / x.shape[2])
        if isinstance(x, FakeTensor):
            shards = min(shards, 16)
        weights = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return _deepspeed().TiledMLP.apply(lambda _, tile: whole(tile), self, x, shards, weights)


def _deepspeed() -> Any:
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.sequence_parallel import ulysses_sp

    return ulysses_sp
