"""What all flash attention kernels for CUDA want alike: windows, head sizes, memory layout.

They count a window from the diagonal that ends at the last query and the last key. Query i of a band sees the
keys j - i > edge: all keys after that diagonal, and ``left`` keys before it.
"""

# B regions of one shape, t queries, s keys, h query heads, g KV heads, D head size.

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from longvila.parallel.kernels.interface import Gradients, Inputs, Kernel, Mask, rows_contiguous
from longvila.parallel.regions import Kind


class Window(NamedTuple):
    """A mask in the terms of flash attention. To the right there is no limit but ``causal``."""

    causal: bool
    left: int | None  # keys before the diagonal; None: all


class Flash(Kernel):
    """A flash attention kernel. Subclasses call their library with what it can take."""

    @abstractmethod
    def _attend(self, x: Inputs, window: Window) -> tuple[Tensor, Tensor]:
        """Return out_BthD and lse_Bht. D is a multiple of 8, and contiguous."""

    @abstractmethod
    def _gradients(
        self, x: Inputs, window: Window, dout_BthD: Tensor, out_BthD: Tensor, lse_Bht: Tensor
    ) -> Gradients:
        """Return the gradients. D is a multiple of 8, and all tensors are contiguous."""

    def _forward(self, x: Inputs) -> tuple[Tensor, Tensor]:
        results = [self._forward_part(part) for _, part in _parts(x)]
        if len(results) == 1:
            return results[0]
        return torch.cat([out for out, _ in results], dim=1), torch.cat([lse for _, lse in results], dim=2)

    def _backward(self, x: Inputs, dout: Tensor, out: Tensor, lse: Tensor) -> Gradients:
        results = [
            self._backward_part(part, dout[:, rows], out[:, rows], lse[..., rows]) for rows, part in _parts(x)
        ]
        if len(results) == 1:
            return results[0]
        first, rest = results
        return Gradients(torch.cat([first.dq, rest.dq], dim=1), first.dk + rest.dk, first.dv + rest.dv)

    def _forward_part(self, x: Inputs) -> tuple[Tensor, Tensor]:
        q, k, v = padded_heads(x.q, x.k, x.v)
        out, lse = self._attend(x._replace(q=q, k=k, v=v), _window(x))
        return out[..., : x.q.shape[-1]], lse.contiguous()

    def _backward_part(self, x: Inputs, dout: Tensor, out: Tensor, lse: Tensor) -> Gradients:
        q, k, v, dout, out = (tensor.contiguous() for tensor in padded_heads(x.q, x.k, x.v, dout, out))
        grads = self._gradients(x._replace(q=q, k=k, v=v), _window(x), dout, out, lse.contiguous())
        return Gradients(*(grad[..., : x.q.shape[-1]] for grad in grads))


def padded_heads(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Fill head sizes up with zeros, which change nothing, to the multiple of 8 that kernels ask for.

    The last axis comes out contiguous.
    """
    missing = -tensors[0].shape[-1] % 8
    return rows_contiguous(*(pad(tensor, (0, missing)) if missing else tensor for tensor in tensors))


def flash_window(mask: Mask, num_queries: int, num_keys: int) -> Window:
    """Return a mask as a window.

    The last query of a band sees ``left`` + 1 keys, and no query is without a key. So left is never negative,
    which to some kernels would mean no limit.
    """
    if mask.kind is not Kind.BAND:
        return Window(causal=mask.kind is Kind.CAUSAL, left=None)
    left = num_keys - num_queries - mask.edge - 1
    assert left >= 0, "the last query of a band is without a key"
    return Window(causal=False, left=left)


def split_band(mask: Mask, num_queries: int, num_keys: int) -> tuple[tuple[slice, Mask], ...]:
    """Cut a band of many queries and few keys into the queries that see all keys, and the rest.

    flash-attn 2 (torch's is the same) replaces no limit to the right by one of ``num_keys``. Counted from its
    diagonal, that hides keys from the first of more than ``num_keys`` + 1 queries. A band has so many where a
    document begins shortly before the end of a chunk.
    """
    if mask.kind is not Kind.BAND or num_queries <= num_keys + 1:
        return ((slice(0, num_queries), mask),)
    first = -mask.edge  # the first query that does not see key 0
    assert 0 < first < num_queries, "a band that is none"
    return (slice(0, first), Mask(Kind.DENSE)), (slice(first, num_queries), Mask(Kind.BAND, 0))


def _parts(x: Inputs) -> list[tuple[slice, Inputs]]:
    split = split_band(x.mask, x.q.shape[1], x.k.shape[1])
    return [(rows, x._replace(q=x.q[:, rows], mask=mask)) for rows, mask in split]


def _window(x: Inputs) -> Window:
    return flash_window(x.mask, x.q.shape[1], x.k.shape[1])
