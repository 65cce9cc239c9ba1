"""The flash attention of torch for CPU."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from longvila.parallel.kernels.interface import Gradients, Inputs, Kernel, Mask, head_major, rows_contiguous
from longvila.parallel.regions import Kind

aten = torch.ops.aten


class CpuFlash(Kernel):
    """Any float dtype. Its causal mask starts top left, so causal means square."""

    def _forward(self, x: Inputs) -> tuple[Tensor, Tensor]:
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            *head_major(*rows_contiguous(x.q, x.k, x.v)),
            0.0,
            x.is_causal,
            attn_mask=_additive(x),
            scale=x.scale,
        )
        return out.transpose(1, 2), lse.contiguous()

    def _backward(self, x: Inputs, dout: Tensor, out: Tensor, lse: Tensor) -> Gradients:
        grads = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *head_major(*rows_contiguous(dout, x.q, x.k, x.v, out)),
            lse.contiguous(),
            *(0.0, x.is_causal),
            attn_mask=_additive(x),
            scale=x.scale,
        )
        return Gradients(*head_major(*grads))


def _additive(x: Inputs) -> Tensor | None:
    """Return a band as the float mask [t, s] that the kernel adds; other masks have no need of one."""
    return _band(x.mask.edge, x.q.shape[1], x.k.shape[1], x.q.dtype) if x.is_band else None


@lru_cache(maxsize=2)
def _band(edge: int, num_queries: int, num_keys: int, dtype: torch.dtype) -> Tensor:
    visible = Mask(Kind.BAND, edge).visible(num_queries, num_keys, torch.device("cpu"))
    return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, float("-inf"))
