"""What a kernel is asked, and what it answers."""

# B regions of one shape, t queries, s keys, h query heads, g KV heads, D head size.

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from longvila.parallel.regions import Kind


class Mask(NamedTuple):
    """Which keys the queries of a region see; see ``regions.Kind``."""

    kind: Kind
    edge: int = 0

    def visible(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
        """Return which keys each query sees, bool [t, s]."""
        ahead = torch.arange(num_keys, device=device) - torch.arange(num_queries, device=device)[:, None]
        if self.kind is Kind.DENSE:
            return torch.ones_like(ahead, dtype=torch.bool)
        return ahead <= 0 if self.kind is Kind.CAUSAL else ahead > self.edge


class Inputs(NamedTuple):
    """One region. No region is empty, and no query of it is without a key."""

    q: Tensor  # [B, t, h, D]
    k: Tensor  # [B, s, g, D]
    v: Tensor  # [B, s, g, D]
    mask: Mask
    scale: float

    @property
    def is_causal(self) -> bool:
        """Whether it is a causal square."""
        return self.mask.kind is Kind.CAUSAL

    @property
    def is_band(self) -> bool:
        """Whether it is cut by the far edge of a sliding window."""
        return self.mask.kind is Kind.BAND


class Gradients(NamedTuple):
    """Of q_BthD, k_BsgD and v_BsgD."""

    dq: Tensor
    dk: Tensor
    dv: Tensor


class Kernel(ABC):
    """Attention of one region with grouped-query heads. Kernels hold no state."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Mask, scale: float) -> tuple[Tensor, Tensor]:
        """Return out_BthD and a contiguous lse_Bht (float32; float64 for float64 inputs)."""
        return self._forward(Inputs(q, k, v, mask, scale))

    def backward(
        self,
        dout: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        *,
        mask: Mask,
        scale: float,
    ) -> Gradients:
        """Return this region's share of the gradients; out and lse are those over all keys of a row."""
        return self._backward(Inputs(q, k, v, mask, scale), dout, out, lse)

    @abstractmethod
    def _forward(self, x: Inputs) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _backward(self, x: Inputs, dout: Tensor, out: Tensor, lse: Tensor) -> Gradients: ...


def rows_contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors with a contiguous last axis. Some kernels check that, others compute nonsense."""
    return tuple(tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in tensors)


def head_major(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Swap the axes of tokens and heads (a view); its own inverse."""
    return tuple(tensor.transpose(1, 2) for tensor in tensors)
