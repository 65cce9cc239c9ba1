"""What travels between ring places, and half precision on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from longvila.parallel import Layout, make_attend, make_groups
from longvila.parallel.comm import TorchGroup, Work
from tests.distributed import run_ranks

HEADS, KV_HEADS, SIZE = 4, 2, 8


class CountingGroup(TorchGroup):
    """Counts what this rank sends from peer to peer."""

    messages = 0
    sent_bytes = 0

    def exchange(
        self, *, sends: Sequence[tuple[int, Tensor]], receives: Sequence[tuple[int, Tensor]]
    ) -> Work:
        self.messages += sum(bool(tensor.numel()) for _, tensor in sends)
        self.sent_bytes += sum(tensor.nbytes for _, tensor in sends)
        return super().exchange(sends=sends, receives=receives)


def inputs(layout: Layout, dtype: torch.dtype) -> list[Tensor]:
    """q, k, v [1, H, T, D] of the padded row and the output's gradient [1, T, H, D]."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, layout.padded_length, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    shapes.append((1, layout.padded_length, HEADS, SIZE))
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def attend_counted(_rank: int, lengths: tuple[int, ...], dtype: torch.dtype) -> tuple[int, int, list[Tensor]]:
    world = dist.group.WORLD
    assert world is not None
    ring = CountingGroup(world)
    groups = replace(make_groups(ulysses_degree=1, ring_degree=ring.size), ring=ring)
    layout = Layout(lengths, 1, ring.size)
    positions = torch.from_numpy(layout.positions_of(groups.sp_rank))
    q, k, v, dout = inputs(layout, dtype)
    leaves = [x[:, :, positions].requires_grad_() for x in (q, k, v)]
    out = make_attend(layout, groups)(leaves[0], leaves[1], leaves[2], scale=0.3)
    grads = torch.autograd.grad(out, leaves, dout[:, positions])
    return ring.messages, ring.sent_bytes, [out.detach(), *grads]


@pytest.mark.parametrize("ring_degree", [2, 4])
def test_three_quarters_of_the_keys_travel_twice_and_come_back_once(ring_degree: int) -> None:
    """At ring 2 that is 2.25 blocks a place, where a relay with gradients in float32 moves 6."""
    layout = Layout((256,), 1, ring_degree)
    results = run_ranks(attend_counted, ring_degree, layout.lengths, torch.bfloat16)
    block_bytes = layout.ring_length * 2 * KV_HEADS * SIZE * torch.bfloat16.itemsize
    blocks = sum(sent_bytes for _, sent_bytes, _ in results) / block_bytes / ring_degree
    assert blocks == 3 * 0.75 * (ring_degree - 1)


def test_documents_that_end_on_their_place_send_no_message() -> None:
    for messages, sent_bytes, _ in run_ranks(attend_counted, 2, (32,) * 4, torch.float32):
        assert (messages, sent_bytes) == (0, 0)


def test_only_keys_of_the_spanning_document_travel() -> None:
    results = run_ranks(attend_counted, 2, (60, 8, 60), torch.float32)  # chunks of 32 tokens
    row_bytes = 2 * KV_HEADS * SIZE * torch.float32.itemsize
    # place 0 sends chunk 0 for chunk 1; place 1 sends the 28 rows of chunk 2 that belong to the last document
    assert [sent_bytes for _, sent_bytes, _ in results] == [
        (2 * 32 + 28) * row_bytes,
        (2 * 28 + 32) * row_bytes,
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_to_float64_as_one_process(dtype: torch.dtype) -> None:
    lengths, ring_degree = (300, 90), 4
    layout = Layout(lengths, 1, ring_degree)
    q, k, v, dout = (x.double() for x in inputs(layout, dtype))
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor([300, 90, layout.padded_length - 390]))
    mask = (documents[:, None] == documents).tril()

    def one_process(dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        out = F.scaled_dot_product_attention(
            leaves[0], leaves[1], leaves[2], attn_mask=mask, scale=0.3, enable_gqa=True
        ).transpose(1, 2)
        kept = out[:, : layout.num_tokens]
        return [kept, *torch.autograd.grad(kept, leaves, dout[:, : layout.num_tokens].to(dtype))]

    results = run_ranks(attend_counted, ring_degree, lengths, dtype)
    order = torch.cat([torch.from_numpy(layout.positions_of(rank)) for rank in range(ring_degree)]).argsort()
    for i, (exact, single) in enumerate(zip(one_process(torch.float64), one_process(dtype), strict=True)):
        axis = 1 if i == 0 else 2
        found = torch.cat([tensors[i] for _, _, tensors in results], dim=axis).index_select(axis, order)
        found = found.narrow(axis, 0, layout.num_tokens).double()
        exact, single = (x.narrow(axis, 0, layout.num_tokens).double() for x in (exact, single))
        assert (found - exact).abs().max() <= 2 * (single - exact).abs().max()
