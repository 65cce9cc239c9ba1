"""The kernels that torch itself carries for CUDA."""

# B regions of one shape, t queries, s keys, h query heads, g KV heads, D head size.

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from longvila.parallel.kernels.flash import Flash, Window, padded_heads
from longvila.parallel.kernels.interface import Gradients, Inputs, Kernel, head_major
from longvila.parallel.kernels.plain import Plain

aten = torch.ops.aten


class CudaFlash(Flash):
    """Flash attention: half precision, head sizes up to 256.

    On Hopper and Blackwell, ``torch.nn.attention.activate_flash_attention_impl`` puts FA3 or FA4 behind it.
    """

    def _attend(self, x: Inputs, window: Window) -> tuple[Tensor, Tensor]:
        out, lse, *_ = aten._flash_attention_forward(
            *(x.q, x.k, x.v),
            *(None, None, x.q.shape[1], x.k.shape[1]),
            *(0.0, window.causal, False),
            scale=x.scale,
            window_size_left=window.left,
            window_size_right=None,
        )
        return out, lse

    def _gradients(
        self, x: Inputs, window: Window, dout_BthD: Tensor, out_BthD: Tensor, lse_Bht: Tensor
    ) -> Gradients:
        no_dropout_seed = torch.zeros(2, dtype=torch.uint64, device=x.q.device)
        grads = aten._flash_attention_backward(
            *(dout_BthD, x.q, x.k, x.v, out_BthD, lse_Bht),
            *(None, None, x.q.shape[1], x.k.shape[1]),
            *(0.0, window.causal),
            *(no_dropout_seed, no_dropout_seed),
            scale=x.scale,
            window_size_left=window.left,
            window_size_right=None,
        )
        return Gradients(*grads)


class CudaCudnn(Kernel):
    """cuDNN's: half precision, head sizes up to 128. It builds a plan for each new shape of a region.

    It knows no window, no single key, and in some versions no single query: these go to CudaFlash.
    """

    def __init__(self) -> None:
        self._flash = CudaFlash()

    def _forward(self, x: Inputs) -> tuple[Tensor, Tensor]:
        if not _suits_cudnn(x):
            return self._flash._forward(x)
        q, k, v = head_major(*padded_heads(x.q, x.k, x.v))
        out, lse_Bht1, *_ = aten._scaled_dot_product_cudnn_attention(
            *(q, k, v, None), True, 0.0, x.is_causal, scale=x.scale
        )
        return out.transpose(1, 2)[..., : x.q.shape[-1]], lse_Bht1.squeeze(-1).contiguous()

    def _backward(self, x: Inputs, dout: Tensor, out: Tensor, lse: Tensor) -> Gradients:
        if not _suits_cudnn(x):
            return self._flash._backward(x, dout, out, lse)
        seed = _no_dropout_seed(x.q)
        grads = aten._scaled_dot_product_cudnn_attention_backward(
            *head_major(*padded_heads(dout, x.q, x.k, x.v, out)),
            lse.contiguous().unsqueeze(-1),
            *(seed, seed, None),
            *(None, None, x.q.shape[1], x.k.shape[1]),
            *(0.0, x.is_causal),
            scale=x.scale,
        )
        return Gradients(*(grad[..., : x.q.shape[-1]] for grad in head_major(*grads)))


class CudaEfficient(Kernel):
    """Memory-efficient attention, for float32. It knows no window: bands go to Plain.

    It wants as many KV heads as query heads, so those are repeated here and their gradients summed.
    """

    def __init__(self) -> None:
        self._plain = Plain()

    def _forward(self, x: Inputs) -> tuple[Tensor, Tensor]:
        if x.is_band:
            return self._plain._forward(x)
        out, lse, *_ = aten._scaled_dot_product_efficient_attention(
            *head_major(*padded_heads(x.q, *_repeated(x))), None, True, 0.0, x.is_causal, scale=x.scale
        )
        # The op rounds the last axis of lse up to a multiple of 32.
        return out.transpose(1, 2)[..., : x.q.shape[-1]], lse[..., : x.q.shape[1]].contiguous()

    def _backward(self, x: Inputs, dout: Tensor, out: Tensor, lse: Tensor) -> Gradients:
        if x.is_band:
            return self._plain._backward(x, dout, out, lse)
        # The op reads out as if it were contiguous, and an lse of infinity makes a weight of 0.
        tensors = (tensor.contiguous() for tensor in padded_heads(dout, x.q, *_repeated(x), out))
        dout, q, k, v, out = head_major(*tensors)
        seed = _no_dropout_seed(x.q)
        dq, dk, dv, _ = aten._scaled_dot_product_efficient_attention_backward(
            *(dout, q, k, v, None, out),
            pad(lse.contiguous(), (0, -lse.shape[-1] % 32), value=math.inf),
            *(seed, seed, 0.0, [True, True, True, False], x.is_causal),
            scale=x.scale,
        )
        dq, dk, dv = (grad[..., : x.q.shape[-1]] for grad in head_major(dq, dk, dv))
        return Gradients(dq, *(grad.unflatten(2, (x.k.shape[2], -1)).sum(3) for grad in (dk, dv)))


def _suits_cudnn(x: Inputs) -> bool:
    return not x.is_band and min(x.q.shape[1], x.k.shape[1]) > 1


def _repeated(x: Inputs) -> tuple[Tensor, Tensor]:
    """Return k_BshD and v_BshD, each KV head once for every query head that it serves."""
    times = x.q.shape[2] // x.k.shape[2]
    return x.k.repeat_interleave(times, dim=2), x.v.repeat_interleave(times, dim=2)


def _no_dropout_seed(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=torch.int64, device=like.device)
