"""What stands in, on CPU, for the attention ops that torch has for CUDA only.

torch's dispatcher checks the calls against the ops' schemas. The functions refuse what the CUDA code refuses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tests.parallel.flash_attn_stand_in import attend, gradients, visible_in_2


def flash_forward(q, k, v, cum_q, cum_k, max_q, max_k, dropout_p, is_causal, debug, **options):
    assert (cum_q, cum_k, max_q, max_k, dropout_p, debug) == (None, None, q.shape[1], k.shape[1], 0, False)
    out, lse = attend(q, k, v, flash_visible(q, k, is_causal, options), options["scale"])
    return out, lse, torch.empty(2), torch.empty(0), torch.empty(0)


def flash_backward(
    dout, q, k, v, out, lse, cum_q, cum_k, max_q, max_k, dropout_p, is_causal, seed, unused, **options
):
    assert (cum_q, cum_k, max_q, max_k, dropout_p) == (None, None, q.shape[1], k.shape[1], 0)
    assert isinstance(seed, Tensor)
    visible = flash_visible(q, k, is_causal, options)
    return gradients(dout, q, k, v, out, lse, visible, options["scale"])


def flash_visible(q: Tensor, k: Tensor, is_causal: bool, options: dict) -> Tensor:
    """torch's flash attention is version 2; None is its -1."""
    left, right = (
        -1 if side is None else side
        for side in (options.get("window_size_left"), options.get("window_size_right"))
    )
    return visible_in_2(q.shape[1], k.shape[1], is_causal, left, right)


def cudnn_forward(q, k, v, bias, compute_lse, dropout_p=0.0, is_causal=False, debug=False, *, scale=None):
    assert (bias, compute_lse, dropout_p, debug) == (None, True, 0, False)
    out, lse = attend(*sequence_major(q, k, v), cudnn_visible(q, k, is_causal), scale)
    seed = torch.zeros((), dtype=torch.int64)
    return out.transpose(1, 2), lse[..., None], None, None, q.shape[2], k.shape[2], seed, seed, None


def cudnn_backward(
    dout, q, k, v, out, lse, seed, offset, bias, cum_q, cum_k, max_q, max_k, dropout_p, is_causal, *, scale
):
    assert (bias, cum_q, cum_k, max_q, max_k, dropout_p) == (None, None, None, q.shape[2], k.shape[2], 0)
    assert isinstance(seed, Tensor)
    assert lse.shape == (*q.shape[:3], 1)
    assert lse.is_contiguous()
    visible = cudnn_visible(q, k, is_causal)
    grads = gradients(*sequence_major(dout, q, k, v, out), lse[..., 0], visible, scale)
    return tuple(sequence_major(*grads))


def cudnn_visible(q: Tensor, k: Tensor, is_causal: bool) -> Tensor:
    assert q.shape[3] <= 128
    assert min(q.shape[2], k.shape[2]) > 1
    return top_left(q, k, is_causal)


def efficient_forward(q, k, v, bias, compute_lse, dropout_p=0.0, is_causal=False, *, scale=None):
    assert (bias, compute_lse, dropout_p) == (None, True, 0)
    assert q.shape[1] == k.shape[1], "as many KV heads as query heads"
    out, lse = attend(*sequence_major(q, k, v), top_left(q, k, is_causal), scale)
    lse = torch.nn.functional.pad(lse, (0, -lse.shape[-1] % 32), value=math.inf)
    return out.transpose(1, 2), lse, torch.empty(()), torch.empty(())


def efficient_backward(
    dout, q, k, v, bias, out, lse, seed, offset, dropout_p, grad_input_mask, is_causal=False, *, scale=None
):
    assert (bias, dropout_p, list(grad_input_mask)) == (None, 0, [True, True, True, False])
    assert q.shape[1] == k.shape[1], "as many KV heads as query heads"
    assert lse.shape[-1] % 32 == 0
    assert lse.is_contiguous()
    assert lse[..., q.shape[2] :].eq(math.inf).all()
    assert out.transpose(1, 2).is_contiguous(), "the kernel takes out's strides for granted"
    visible = top_left(q, k, is_causal)
    own_lse = lse[..., : q.shape[2]].contiguous()
    grads = gradients(*sequence_major(dout, q, k, v, out), own_lse, visible, scale)
    return *sequence_major(*grads), torch.empty(0)


def top_left(q: Tensor, k: Tensor, is_causal: bool) -> Tensor:
    """Head-major q and k: all keys, or a causal mask from the first query and key on."""
    visible = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
    return visible.tril() if is_causal else visible


def sequence_major(*tensors: Tensor) -> list[Tensor]:
    return [tensor.transpose(1, 2) for tensor in tensors]


OPS = {
    "_flash_attention_forward": flash_forward,
    "_flash_attention_backward": flash_backward,
    "_scaled_dot_product_cudnn_attention": cudnn_forward,
    "_scaled_dot_product_cudnn_attention_backward": cudnn_backward,
    "_scaled_dot_product_efficient_attention": efficient_forward,
    "_scaled_dot_product_efficient_attention_backward": efficient_backward,
}


@contextmanager
def aten_on_cpu() -> Iterator[None]:
    """Give CPU tensors the ops of CUDA while this lasts."""
    with torch.library._scoped_library("aten", "IMPL") as library:
        for name, function in OPS.items():
            library.impl(name, function, "CPU")
        yield
