"""Attention of one region: ``(q, k, v, mask) -> (out, lse)`` and its backward with an outside lse.

The backward takes out and lse of the *whole* row, so that the gradients of regions simply add up.
Queries and keys come sequence-major; a kernel never sees an empty region nor a query without a key.
"""

# B regions of one shape, t queries, s keys, h query heads, g KV heads, D head size.

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from longvila.parallel.heads import UniformHeads
from longvila.parallel.regions import Kind

aten = torch.ops.aten


class Mask(NamedTuple):
    """Which keys the queries of a region see; see ``regions.Kind``."""

    kind: Kind
    edge: int = 0


class Gradients(NamedTuple):
    """Of q_BthD, k_BsgD and v_BsgD."""

    dq: Tensor
    dk: Tensor
    dv: Tensor


class Kernel(Protocol):
    """Attention of one region with grouped-query heads."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Mask, scale: float) -> tuple[Tensor, Tensor]:
        """Return out_BthD and lse_Bht (float32; float64 for float64 inputs)."""
        ...

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
        """Return this region's share of the gradients."""
        ...


class CpuFlash:
    """The flash attention of torch for CPU. Its causal mask starts top left, so causal means square."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Mask, scale: float) -> tuple[Tensor, Tensor]:
        """See Kernel."""
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            *_head_major(q, k, v), 0.0, mask.kind is Kind.CAUSAL, attn_mask=_additive(mask, q, k), scale=scale
        )
        return out.transpose(1, 2), lse.contiguous()

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
        """See Kernel."""
        grads = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *_head_major(dout, q, k, v, out),
            lse.contiguous(),
            0.0,
            mask.kind is Kind.CAUSAL,
            attn_mask=_additive(mask, q, k),
            scale=scale,
        )
        return Gradients(*_head_major(*grads))


class CudaFlash:
    """The flash attention that torch carries for CUDA: half precision, head sizes up to 256.

    On Hopper and Blackwell, ``torch.nn.attention.activate_flash_attention_impl`` puts FA3 or FA4 behind it.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Mask, scale: float) -> tuple[Tensor, Tensor]:
        """See Kernel."""
        left, right = _flash_window(mask, q, k)
        out, lse, *_ = aten._flash_attention_forward(
            *_padded_heads(q, k, v),
            *(None, None, q.shape[1], k.shape[1]),
            *(0.0, mask.kind is Kind.CAUSAL, False),
            scale=scale,
            window_size_left=left,
            window_size_right=right,
        )
        return out[..., : q.shape[-1]], lse

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
        """See Kernel."""
        left, right = _flash_window(mask, q, k)
        no_dropout_seed = torch.zeros(2, dtype=torch.uint64, device=q.device)
        grads = aten._flash_attention_backward(
            *(tensor.contiguous() for tensor in _padded_heads(dout, q, k, v, out)),
            lse.contiguous(),
            *(None, None, q.shape[1], k.shape[1]),
            *(0.0, mask.kind is Kind.CAUSAL),
            *(no_dropout_seed, no_dropout_seed),
            scale=scale,
            window_size_left=left,
            window_size_right=right,
        )
        return Gradients(*(grad[..., : q.shape[-1]] for grad in grads))


class Plain:
    """Attention written out, for what no flash kernel takes (float32 on CUDA, other devices).

    Memory grows with queries × keys of a region.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Mask, scale: float) -> tuple[Tensor, Tensor]:
        """See Kernel."""
        scores = self._scores(q, k, mask=mask, scale=scale)
        lse = torch.logsumexp(scores, dim=-1)
        weights = torch.exp(scores - lse[..., None])
        out = torch.einsum("bgrts,bsgd->btgrd", weights.to(v.dtype), v)
        return out.reshape(q.shape), lse.flatten(1, 2)

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
        """See Kernel."""
        groups = (k.shape[2], -1)
        dout_g, out_g, q_g = (tensor.unflatten(2, groups) for tensor in (dout, out, q))
        scores = self._scores(q, k, mask=mask, scale=scale)
        weights = torch.exp(scores - lse.unflatten(1, groups)[..., None])
        dweights = torch.einsum("btgrd,bsgd->bgrts", dout_g, v).to(weights.dtype)
        delta = (dout_g * out_g).sum(-1, dtype=weights.dtype).permute(0, 2, 3, 1)
        dscores = (weights * (dweights - delta[..., None]) * scale).to(q.dtype)
        return Gradients(
            dq=torch.einsum("bgrts,bsgd->btgrd", dscores, k).reshape(q.shape),
            dk=torch.einsum("bgrts,btgrd->bsgd", dscores, q_g),
            dv=torch.einsum("bgrts,btgrd->bsgd", weights.to(dout.dtype), dout_g),
        )

    def _scores(self, q: Tensor, k: Tensor, *, mask: Mask, scale: float) -> Tensor:
        """Return the masked scores [B, g, h / g, t, s], in float32 at least."""
        scores = torch.einsum("btgrd,bsgd->bgrts", q.unflatten(2, (k.shape[2], -1)), k)
        scores = scores.to(torch.promote_types(q.dtype, torch.float32)) * scale
        if mask.kind is Kind.DENSE:
            return scores
        return scores.masked_fill(~_visible(mask, q.shape[1], k.shape[1], q.device), float("-inf"))


class HeadParts:
    """A kernel for heads of which not every KV head serves equally many queries: part by part."""

    def __init__(self, kernel: Kernel, parts: tuple[UniformHeads, ...]) -> None:
        self._kernel = kernel
        self._parts = parts

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Mask, scale: float) -> tuple[Tensor, Tensor]:
        """See Kernel."""
        results = [
            self._kernel.forward(q[:, :, part.q], k[:, :, part.kv], v[:, :, part.kv], mask=mask, scale=scale)
            for part in self._parts
        ]
        return torch.cat([out for out, _ in results], dim=2), torch.cat([lse for _, lse in results], dim=1)

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
        """See Kernel."""
        results = [
            self._kernel.backward(
                *(dout[:, :, part.q], q[:, :, part.q], k[:, :, part.kv], v[:, :, part.kv]),
                *(out[:, :, part.q], lse[:, part.q]),
                mask=mask,
                scale=scale,
            )
            for part in self._parts
        ]
        return Gradients(*(torch.cat(grads, dim=2) for grads in zip(*results, strict=True)))


def pick_kernel(q: Tensor, parts: tuple[UniformHeads, ...]) -> Kernel:
    """Return the best kernel for tensors like ``q`` on this machine."""
    kernel = _kernel_for(q)
    return kernel if len(parts) == 1 else HeadParts(kernel, parts)


def _kernel_for(q: Tensor) -> Kernel:
    if q.device.type == "cpu":
        return CpuFlash()
    if q.device.type == "cuda" and q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] <= 256:
        return CudaFlash()
    return Plain()


def _head_major(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Swap the axes of tokens and heads (a view); its own inverse."""
    return tuple(tensor.transpose(1, 2) for tensor in tensors)


def _padded_heads(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Fill head sizes up with zeros, which change nothing, to the multiple of 8 that kernels ask for."""
    missing = -tensors[0].shape[-1] % 8
    return tuple(pad(tensor, (0, missing)) for tensor in tensors) if missing else tensors


def _flash_window(mask: Mask, q: Tensor, k: Tensor) -> tuple[int | None, int | None]:
    """Return the window (left, right) of a mask, which kernels align at the last query and last key."""
    if mask.kind is not Kind.BAND:
        return None, None
    return k.shape[1] - q.shape[1] - mask.edge - 1, k.shape[1]


def _additive(mask: Mask, q: Tensor, k: Tensor) -> Tensor | None:
    """Return a band as the float mask [t, s] that the CPU kernel adds; other masks have no need of one."""
    if mask.kind is not Kind.BAND:
        return None
    return _band(mask.edge, q.shape[1], k.shape[1], q.dtype)


@lru_cache(maxsize=8)
def _band(edge: int, num_queries: int, num_keys: int, dtype: torch.dtype) -> Tensor:
    visible = _visible(Mask(Kind.BAND, edge), num_queries, num_keys, torch.device("cpu"))
    return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, float("-inf"))


def _visible(mask: Mask, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Return which keys each query sees, bool [t, s]."""
    ahead = torch.arange(num_keys, device=device) - torch.arange(num_queries, device=device)[:, None]
    return ahead <= 0 if mask.kind is Kind.CAUSAL else ahead > mask.edge
