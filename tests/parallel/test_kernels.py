"""Each kernel against attention written out, with an outside lse, and the traps of each."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longvila.parallel.heads import HeadPlan, UniformHeads
from longvila.parallel.kernels import CpuFlash, CudaFlash, HeadParts, Kernel, Mask, Plain, pick_kernel
from longvila.parallel.merge import merge
from longvila.parallel.regions import Kind
from tests.parity import reference

SCALE = 0.4
MASKS = [
    (Mask(Kind.CAUSAL), 9, 9),
    (Mask(Kind.DENSE), 5, 9),
    (Mask(Kind.DENSE), 9, 1),
    (Mask(Kind.BAND, -2), 6, 8),
    (Mask(Kind.BAND, 0), 8, 9),
]


def seen(mask: Mask, queries: int, keys: int) -> Tensor:
    ahead = torch.arange(keys) - torch.arange(queries)[:, None]
    return {Kind.CAUSAL: ahead <= 0, Kind.DENSE: ahead == ahead, Kind.BAND: ahead > mask.edge}[mask.kind]


def inputs(queries: int, keys: int, *, heads: int = 6, kv_heads: int = 2, seed: int = 0) -> list[Tensor]:
    """q, k, v and dout of two regions, strided as they are after an all-to-all."""
    generator = torch.Generator().manual_seed(seed)
    packed = torch.randn(2, max(queries, keys), heads * 2 + kv_heads * 2, 8, generator=generator).double()
    q, k, v, dout = packed.split([heads, kv_heads, kv_heads, heads], dim=2)
    return [q[:, :queries], k[:, :keys], v[:, :keys], dout[:, :queries]]


def written_out(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    outs = [
        reference.attention(
            q[i].transpose(0, 1), k[i].transpose(0, 1), v[i].transpose(0, 1), visible, scale=SCALE
        ).transpose(0, 1)
        for i in range(len(q))
    ]
    return torch.stack(outs)


@pytest.mark.parametrize("kernel", [CpuFlash(), Plain()])
@pytest.mark.parametrize(("mask", "queries", "keys"), MASKS)
def test_a_region_equals_attention_written_out(kernel: Kernel, mask: Mask, queries: int, keys: int) -> None:
    q, k, v, dout = inputs(queries, keys)
    leaves = (q.clone().requires_grad_(), k.clone().requires_grad_(), v.clone().requires_grad_())
    wanted = written_out(*leaves, seen(mask, queries, keys))
    out, lse = kernel.forward(q, k, v, mask=mask, scale=SCALE)
    grads = kernel.backward(dout, q, k, v, out, lse, mask=mask, scale=SCALE)
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-12)
    assert lse.is_contiguous()
    assert lse.dtype == torch.float64
    for found, gradient in zip(grads, torch.autograd.grad(wanted, leaves, dout), strict=True):
        torch.testing.assert_close(found, gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [CpuFlash(), Plain()])
def test_gradients_of_two_halves_of_the_keys_add_up(kernel: Kernel) -> None:
    q, k, v, dout = inputs(5, 8)
    dense = Mask(Kind.DENSE)
    whole, whole_lse = kernel.forward(q, k, v, mask=dense, scale=SCALE)
    wanted = kernel.backward(dout, q, k, v, whole, whole_lse, mask=dense, scale=SCALE)
    halves = [(k[:, :3], v[:, :3]), (k[:, 3:], v[:, 3:])]
    results = [kernel.forward(q, *half, mask=dense, scale=SCALE) for half in halves]
    for row in range(len(q)):
        out, lse = results[0][0][row].clone(), results[0][1][row].clone()
        merge(out, lse, results[1][0][row], results[1][1][row])
        torch.testing.assert_close(out, whole[row], rtol=0, atol=1e-12)
        torch.testing.assert_close(lse, whole_lse[row], rtol=0, atol=1e-12)
    grads = [kernel.backward(dout, q, *half, whole, whole_lse, mask=dense, scale=SCALE) for half in halves]
    torch.testing.assert_close(grads[0].dq + grads[1].dq, wanted.dq, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([grads[0].dk, grads[1].dk], 1), wanted.dk, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([grads[0].dv, grads[1].dv], 1), wanted.dv, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("plan", "rank"), [(HeadPlan(7, 1, 2), 0), (HeadPlan(6, 3, 4), 0), (HeadPlan(9, 3, 2), 0)]
)
def test_heads_of_unequal_shares_equal_attention_written_out(plan: HeadPlan, rank: int) -> None:
    q, k, v, dout = inputs(9, 9, heads=plan.num_heads, kv_heads=plan.num_kv_heads)
    heads, kv = slice(*plan.q_ranges[rank]), slice(*plan.kv_ranges[rank])
    kernel = pick_kernel(q, plan.uniform(rank))
    assert isinstance(kernel, HeadParts) == (len(plan.uniform(rank)) > 1)
    leaves = (q.clone().requires_grad_(), k.clone().requires_grad_(), v.clone().requires_grad_())
    wanted = written_out(*leaves, seen(MASKS[0][0], 9, 9))[:, :, heads]
    own = (q[:, :, heads], k[:, :, kv], v[:, :, kv])
    out, lse = kernel.forward(*own, mask=Mask(Kind.CAUSAL), scale=SCALE)
    grads = kernel.backward(dout[:, :, heads], *own, out, lse, mask=Mask(Kind.CAUSAL), scale=SCALE)
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-12)
    all_grads = torch.autograd.grad(wanted, leaves, dout[:, :, heads])
    for found, gradient, part in zip(grads, all_grads, (heads, kv, kv), strict=True):
        torch.testing.assert_close(found, gradient[:, :, part], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_lse_in_float32(dtype: torch.dtype) -> None:
    q, k, v, _ = (x.to(dtype) for x in inputs(9, 9))
    for kernel in (CpuFlash(), Plain()):
        out, lse = kernel.forward(q, k, v, mask=Mask(Kind.CAUSAL), scale=SCALE)
        assert (out.dtype, lse.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize(("mask", "queries", "keys"), MASKS)
def test_the_cuda_call_fits_torchs_schema(mask: Mask, queries: int, keys: int) -> None:
    """Shapes only, on the meta device: values need a GPU. A head size of 12 is filled up to 16."""
    q = torch.empty(2, queries, 6, 12, device="meta", dtype=torch.bfloat16)
    k = torch.empty(2, keys, 2, 12, device="meta", dtype=torch.bfloat16)
    out, lse = CudaFlash().forward(q, k, k, mask=mask, scale=SCALE)
    assert (out.shape, lse.shape) == (q.shape, (2, 6, queries))
    grads = CudaFlash().backward(out, q, k, k, out, lse, mask=mask, scale=SCALE)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, k.shape]


def test_the_kernel_follows_device_and_dtype() -> None:
    one = (UniformHeads(slice(0, 1), slice(0, 1)),)
    assert isinstance(pick_kernel(torch.empty(1, 1, 8), one), CpuFlash)
    assert isinstance(pick_kernel(torch.empty(1, 1, 8, device="meta"), one), Plain)
