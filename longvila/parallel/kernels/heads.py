"""Heads of which not every KV head serves equally many queries."""

from __future__ import annotations

import torch
from torch import Tensor

from longvila.parallel.heads import UniformHeads
from longvila.parallel.kernels.interface import Gradients, Inputs, Kernel


class HeadParts(Kernel):
    """Another kernel, called part by part of the heads."""

    def __init__(self, kernel: Kernel, parts: tuple[UniformHeads, ...]) -> None:
        self._kernel = kernel
        self._parts = parts

    def _forward(self, x: Inputs) -> tuple[Tensor, Tensor]:
        results = [self._kernel._forward(_part(x, heads)) for heads in self._parts]
        return torch.cat([out for out, _ in results], dim=2), torch.cat([lse for _, lse in results], dim=1)

    def _backward(self, x: Inputs, dout: Tensor, out: Tensor, lse: Tensor) -> Gradients:
        results = [
            self._kernel._backward(_part(x, heads), dout[:, :, heads.q], out[:, :, heads.q], lse[:, heads.q])
            for heads in self._parts
        ]
        return Gradients(*(torch.cat(grads, dim=2) for grads in zip(*results, strict=True)))


def _part(x: Inputs, heads: UniformHeads) -> Inputs:
    return x._replace(q=x.q[:, :, heads.q], k=x.k[:, :, heads.kv], v=x.v[:, :, heads.kv])
