"""Each kernel against attention written out, with an outside lse, and the traps of each.

The kernels for CUDA call stand-ins that compute on CPU with the same signatures and rules. What is left for a
GPU to show is that the libraries do what their sources say.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longvila.parallel.heads import HeadPlan, UniformHeads
from longvila.parallel.kernels import (
    CpuFlash,
    CudaCudnn,
    CudaEfficient,
    CudaFlash,
    FlashAttn2,
    FlashAttn3,
    FlashAttn4,
    HeadParts,
    Kernel,
    Mask,
    Plain,
    pick_kernel,
)
from longvila.parallel.kernels.flash import flash_window, split_band
from longvila.parallel.layout import Layout
from longvila.parallel.merge import merge
from longvila.parallel.regions import Kind, Region
from tests.parallel.aten_stand_in import aten_on_cpu
from tests.parallel.flash_attn_stand_in import PACKAGES, visible_in_2, visible_in_3, visible_in_4
from tests.parity import reference

SCALE = 0.4
MASKS = [
    (Mask(Kind.CAUSAL), 9, 9),
    (Mask(Kind.CAUSAL), 1, 1),
    (Mask(Kind.DENSE), 5, 9),
    (Mask(Kind.DENSE), 9, 1),
    (Mask(Kind.DENSE), 1, 9),
    (Mask(Kind.BAND, -2), 6, 8),
    (Mask(Kind.BAND, 0), 8, 9),
    (Mask(Kind.BAND, -3), 7, 6),
    (Mask(Kind.BAND, -4), 8, 6),  # more queries than keys + 1: see split_band
    (Mask(Kind.BAND, -8), 11, 5),
]
KERNELS = [CpuFlash, Plain, CudaFlash, CudaCudnn, CudaEfficient, FlashAttn2, FlashAttn3, FlashAttn4]
ATEN_KERNELS = [CudaFlash, CudaCudnn, CudaEfficient]


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for package in PACKAGES.values():
        monkeypatch.setitem(sys.modules, package.__name__, package)
    with aten_on_cpu():
        yield


def seen(mask: Mask, queries: int, keys: int) -> Tensor:
    ahead = torch.arange(keys) - torch.arange(queries)[:, None]
    return {Kind.CAUSAL: ahead <= 0, Kind.DENSE: ahead == ahead, Kind.BAND: ahead > mask.edge}[mask.kind]


def inputs(
    queries: int, keys: int, *, heads: int = 6, kv_heads: int = 2, head_size: int = 8, seed: int = 0
) -> list[Tensor]:
    """q, k, v and dout of two regions, strided as they are after an all-to-all."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, max(queries, keys), heads * 2 + kv_heads * 2, head_size)
    packed = torch.randn(shape, generator=generator).double()
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


def assert_equals_written_out(
    kernel: Kernel, mask: Mask, q: Tensor, k: Tensor, v: Tensor, dout: Tensor
) -> None:
    leaves = (q.clone().requires_grad_(), k.clone().requires_grad_(), v.clone().requires_grad_())
    wanted = written_out(*leaves, seen(mask, q.shape[1], k.shape[1]))
    out, lse = kernel.forward(q, k, v, mask=mask, scale=SCALE)
    grads = kernel.backward(dout, q, k, v, out, lse, mask=mask, scale=SCALE)
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-12)
    assert lse.is_contiguous()
    assert (lse.shape, lse.dtype) == ((2, q.shape[2], q.shape[1]), torch.float64)
    for found, gradient in zip(grads, torch.autograd.grad(wanted, leaves, dout), strict=True):
        torch.testing.assert_close(found, gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("mask", "queries", "keys"), MASKS)
def test_a_region_equals_attention_written_out(
    kernel: type[Kernel], mask: Mask, queries: int, keys: int
) -> None:
    assert_equals_written_out(kernel(), mask, *inputs(queries, keys))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("head_size", [1, 12, 20])
@pytest.mark.parametrize(("heads", "kv_heads"), [(3, 3), (4, 1)])
def test_any_head_size_and_share_equals_attention_written_out(
    kernel: type[Kernel], head_size: int, heads: int, kv_heads: int
) -> None:
    for mask, queries, keys in (MASKS[0], MASKS[2], MASKS[-1]):
        given = inputs(queries, keys, heads=heads, kv_heads=kv_heads, head_size=head_size)
        assert_equals_written_out(kernel(), mask, *given)


@pytest.mark.parametrize("kernel", KERNELS)
def test_tensors_that_are_strided_anyhow_are_taken(kernel: type[Kernel]) -> None:
    q, k, v, dout = (tensor.mT.contiguous().mT for tensor in inputs(9, 9))
    ones = torch.ones((), dtype=dout.dtype).expand(dout.shape)  # as the gradient of a sum comes
    assert all(tensor.stride(-1) != 1 for tensor in (q, k, v, dout, ones))
    assert_equals_written_out(kernel(), Mask(Kind.CAUSAL), q, k, v, dout)
    assert_equals_written_out(kernel(), Mask(Kind.CAUSAL), q, k, v, ones)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_of_two_halves_of_the_keys_add_up(kernel: type[Kernel]) -> None:
    q, k, v, dout = inputs(5, 8)
    attention, dense = kernel(), Mask(Kind.DENSE)
    whole, whole_lse = attention.forward(q, k, v, mask=dense, scale=SCALE)
    wanted = attention.backward(dout, q, k, v, whole, whole_lse, mask=dense, scale=SCALE)
    halves = [(k[:, :3], v[:, :3]), (k[:, 3:], v[:, 3:])]
    results = [attention.forward(q, *half, mask=dense, scale=SCALE) for half in halves]
    for row in range(len(q)):
        out, lse = results[0][0][row].clone(), results[0][1][row].clone()
        merge(out, lse, results[1][0][row], results[1][1][row])
        torch.testing.assert_close(out, whole[row], rtol=0, atol=1e-12)
        torch.testing.assert_close(lse, whole_lse[row], rtol=0, atol=1e-12)
    # As blocks.py hands them over: a slice of the lse of more rows.
    strided_lse = torch.cat([whole_lse, whole_lse], dim=2)[..., :5]
    grads = [
        attention.backward(dout, q, *half, whole, strided_lse, mask=dense, scale=SCALE) for half in halves
    ]
    torch.testing.assert_close(grads[0].dq + grads[1].dq, wanted.dq, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([grads[0].dk, grads[1].dk], 1), wanted.dk, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([grads[0].dv, grads[1].dv], 1), wanted.dv, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", KERNELS)
@pytest.mark.parametrize(
    ("plan", "rank"), [(HeadPlan(7, 1, 2), 0), (HeadPlan(6, 3, 4), 0), (HeadPlan(9, 3, 2), 0)]
)
def test_heads_of_unequal_shares_equal_attention_written_out(
    make: type[Kernel], plan: HeadPlan, rank: int
) -> None:
    q, k, v, dout = inputs(9, 9, heads=plan.num_heads, kv_heads=plan.num_kv_heads)
    heads, kv = slice(*plan.q_ranges[rank]), slice(*plan.kv_ranges[rank])
    kernel = HeadParts(make(), plan.uniform(rank))
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


@pytest.mark.parametrize("kernel", ATEN_KERNELS)
@pytest.mark.parametrize(("mask", "queries", "keys"), MASKS)
def test_a_call_fits_torchs_own_idea_of_shapes(
    kernel: type[Kernel], mask: Mask, queries: int, keys: int
) -> None:
    """On the meta device, which knows all six ops. A head size of 12 is filled up to 16."""
    dtype = torch.float32 if kernel is CudaEfficient else torch.bfloat16
    q = torch.empty(2, queries, 6, 12, device="meta", dtype=dtype)
    k = torch.empty(2, keys, 2, 12, device="meta", dtype=dtype)
    out, lse = kernel().forward(q, k, k, mask=mask, scale=SCALE)
    assert (out.shape, lse.shape) == (q.shape, (2, 6, queries))
    assert (out.dtype, lse.dtype, lse.is_contiguous()) == (dtype, torch.float32, True)
    grads = kernel().backward(out, q, k, k, out, lse, mask=mask, scale=SCALE)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, k.shape]


def bands(layout: Layout) -> list[Region]:
    regions = [r for rank in range(layout.ring_degree) for step in layout.regions(rank) for r in step]
    return [region for region in regions if region.kind is Kind.BAND]


def assert_windows_show_the_band(region: Region) -> None:
    """Whatever flash attention is told of a band of a layout, it shows the band's keys in all versions."""
    mask, queries, keys = Mask(region.kind, region.edge), region.q.size, region.k.size
    shown: dict[str, list[Tensor]] = {"2": [], "3": [], "4": []}
    for rows, part in split_band(mask, queries, keys):
        size = rows.stop - rows.start
        window = flash_window(part, size, keys)
        assert window.left is None or 0 <= window.left < keys
        left = -1 if window.left is None else window.left
        shown["2"].append(visible_in_2(size, keys, window.causal, left, -1))
        shown["3"].append(visible_in_3(size, keys, window.causal, left, -1))
        shown["4"].append(visible_in_4(size, keys, window.causal, window.left, None))
    for parts in shown.values():
        assert torch.equal(torch.cat(parts), seen(mask, queries, keys))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, 60) | st.integers(1, 4), min_size=1, max_size=12).map(tuple),
    st.sampled_from([1, 2, 3, 4, 8]),
    st.integers(1, 70),
)
def test_every_band_of_a_layout_is_a_window(lengths: tuple[int, ...], ring_degree: int, window: int) -> None:
    for region in bands(Layout(lengths, 1, ring_degree, window)):
        assert_windows_show_the_band(region)


def test_a_document_that_begins_late_in_a_chunk_makes_a_band_that_flash_attn_2_takes_in_two() -> None:
    layout = Layout((90, 300), 1, 2, window=50)
    wide = [region for region in bands(layout) if region.q.size > region.k.size + 1]
    assert wide
    for region in wide:
        mask = Mask(region.kind, region.edge)
        left = flash_window(mask, region.q.size, region.k.size).left
        assert left is not None
        whole = visible_in_2(region.q.size, region.k.size, False, left, -1)
        assert not torch.equal(whole, seen(mask, region.q.size, region.k.size))
        assert len(split_band(mask, region.q.size, region.k.size)) == 2
        assert_windows_show_the_band(region)


def test_the_kernel_follows_device_and_dtype() -> None:
    one = (UniformHeads(slice(0, 1), slice(0, 1)),)
    assert isinstance(pick_kernel(torch.empty(1, 1, 8), one), CpuFlash)
    assert isinstance(pick_kernel(torch.empty(1, 1, 8, device="meta"), one), Plain)
    assert isinstance(pick_kernel(torch.empty(1, 1, 8), (*one, *one)), HeadParts)
