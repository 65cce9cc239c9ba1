"""Shapes of one attention layer, its inputs, and what one process makes of them."""

# H query heads, h KV heads, T tokens of the row, D head size.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

HEAD_SIZE = 64


@dataclass(frozen=True)
class Shape:
    """Heads, and the lengths of the documents in a packed row."""

    name: str
    num_heads: int
    num_kv_heads: int
    lengths: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of the row."""
        return sum(self.lengths)

    @property
    def scale(self) -> float:
        """What scores are multiplied by."""
        return HEAD_SIZE**-0.5


class Tensors(NamedTuple):
    """Inputs of a layer, and the gradient of its output."""

    q: Tensor  # [1, H, T, D]
    k: Tensor  # [1, h, T, D]
    v: Tensor  # [1, h, T, D]
    dout: Tensor  # [1, T, H, D]

    def at(self, positions: Tensor, dtype: torch.dtype) -> Tensors:
        """Return the part of some positions; q, k and v ask for gradients."""
        q, k, v = (x[:, :, positions].to(dtype).requires_grad_() for x in self[:3])
        return Tensors(q, k, v, self.dout[:, positions].to(dtype))


class Wanted(NamedTuple):
    """What one process computes in float64."""

    out: Tensor  # [1, T, H, D]
    dq: Tensor
    dk: Tensor
    dv: Tensor


def make_tensors(shape: Shape, seed: int = 0) -> Tensors:
    """Draw the inputs; the same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    heads = (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads)
    q, k, v = (torch.randn(1, h, shape.num_tokens, HEAD_SIZE, generator=generator) for h in heads)
    dout = torch.randn(1, shape.num_tokens, shape.num_heads, HEAD_SIZE, generator=generator)
    return Tensors(q, k, v, dout)


def on_one_process(shape: Shape, tensors: Tensors) -> Wanted:
    """Attend document by document, in float64, with torch's own attention."""
    q, k, v, dout = (x.detach().double() for x in tensors)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    outs = [
        F.scaled_dot_product_attention(*document, is_causal=True, scale=shape.scale, enable_gqa=True)
        for document in zip(*(x.split(shape.lengths, dim=2) for x in leaves), strict=True)
    ]
    out = torch.cat(outs, dim=2).transpose(1, 2)
    dq, dk, dv = torch.autograd.grad(out, leaves, dout)
    return Wanted(out.detach(), dq, dk, dv)


def largest_gradient_error(found: Sequence[Tensor], wanted: Wanted, positions: Tensor) -> float:
    """Return the largest error of dq, dk and dv at some positions, relative to each one's largest element."""
    return max(
        float((mine.double() - whole[:, :, positions]).abs().max() / whole.abs().max())
        for mine, whole in zip(found, wanted[1:], strict=True)
    )
