"""Torch's own ring attention, on CPU: its private template of context parallelism, given the CPU kernel.

The public ``context_parallel`` does not run on CPU, for want of a rule for this kernel; the template that it
calls does. Ranks hold an early and a late chunk (torch calls it head-tail), so it does the same causal work
as the others. One document only; ring only.
"""

# B rows, t tokens held by this rank, H query heads, h KV heads, D head size.

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor.experimental._context_parallel import _attention as template

aten = torch.ops.aten
ROTATE_METHODS = ("alltoall", "allgather")
"""How K and V go round: ``alltoall`` is a relay, ``allgather`` is what torch does unless told otherwise."""
_TOKENS = 2  # the axis of tokens in [B, H, t, D]


class TorchRing:
    """One layer over all ranks."""

    def __init__(self, rotate_method: str) -> None:
        self._rotate_method = rotate_method

    def __call__(self, q_BHtD: Tensor, k_BhtD: Tensor, v_BhtD: Tensor, *, scale: float) -> Tensor:
        """Return out_BtHD."""
        template.set_rotate_method(self._rotate_method)
        out: Any = _Template.apply(q_BHtD, k_BhtD, v_BhtD, scale)
        return out.transpose(1, 2)


def _kernel(
    query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, is_causal, attn_mask=None, scale=scale
    )
    return out, lse.contiguous()


def _kernel_backward(
    *,
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    is_causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(
        *(grad_out, query, key, value, out, logsumexp), 0.0, is_causal, attn_mask=None, scale=scale
    )


class _Template(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        out, lse = template._templated_ring_attention(
            _world(), _TOKENS, _as_any(_kernel), q, k, v, is_causal=True, scale=scale
        )
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout: Tensor
    ) -> tuple[Tensor | None, ...]:
        dq, dk, dv = template._templated_ring_attention_backward(
            _world(),
            _TOKENS,
            _as_any(_kernel_backward),
            dout,
            "grad_out",
            *ctx.saved_tensors,
            is_causal=True,
            scale=ctx.scale,
        )
        return dq, dk, dv, None


def _world() -> dist.ProcessGroup:
    world = dist.group.WORLD
    assert world is not None
    return world


def _as_any(function: object) -> Any:
    """Hide a kernel's exact signature from the template's looser protocol."""
    return function
