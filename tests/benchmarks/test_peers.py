"""The peers that we wrote are exact, and the bytes that they and we send are counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.counting import CountingFunctionalCollectives, Traffic, counted
from benchmarks.mmsp.schemes import refusals
from benchmarks.mmsp.shapes import Shape, Wanted, make_tensors, on_one_process
from benchmarks.peers.relay import Attention2D, RelayLayout
from benchmarks.peers.torch_ring import ROTATE_METHODS, TorchRing
from benchmarks.peers.ulysses import UlyssesAttention, positions_of, refusal
from longvila.parallel import Layout, make_attend, make_groups
from tests.distributed import run_ranks

RANKS = 4
SHAPES = [
    Shape("grouped", 8, 4, (64,)),
    Shape("two KV heads on four ranks", 8, 2, (64,)),
    Shape("packed", 4, 4, (16, 32, 16)),
]
GQA7 = Shape("gqa7", 14, 2, (64,))
TOLERANCE = 1e-12


def largest_error(
    attend: Callable[..., Tensor], shape: Shape, positions: Tensor, dtype: torch.dtype = torch.float64
) -> float:
    """Of the output and of the three gradients, relative to each one's largest element."""
    tensors = make_tensors(shape)
    wanted: Wanted = on_one_process(shape, tensors)
    local = tensors.at(positions, dtype)
    out = attend(*local[:3], scale=shape.scale)
    found = [out.detach().transpose(1, 2), *torch.autograd.grad(out, local[:3], local.dout)]
    whole = [wanted.out.transpose(1, 2), *wanted[1:]]
    return max(
        float((mine.double() - all_of_it[:, :, positions]).abs().max() / all_of_it.abs().max())
        for mine, all_of_it in zip(found, whole, strict=True)
    )


def peers_on_rank(rank: int) -> dict[str, float]:
    errors = {}
    by_degrees = {
        degrees: make_groups(ulysses_degree=degrees[0], ring_degree=degrees[1])
        for degrees in [(1, 4), (2, 2), (4, 1)]
    }
    for shape, (degrees, groups) in itertools.product(SHAPES, by_degrees.items()):
        layout = RelayLayout(shape.lengths, *degrees)
        positions = torch.from_numpy(layout.positions_of(rank))
        for again in (False, True):
            attend = Attention2D(layout, groups, forward_again=again)
            errors[f"relay {degrees} {shape.name} {again}"] = largest_error(attend, shape, positions)
    for shape in SHAPES:
        positions = torch.from_numpy(positions_of(rank, RANKS, shape.num_tokens))
        attend = UlyssesAttention(shape.lengths, by_degrees[4, 1].ulysses)
        errors[f"ulysses {shape.name}"] = largest_error(attend, shape, positions)
    return errors


def test_relay_and_ulysses_are_exact() -> None:
    for errors in run_ranks(peers_on_rank, RANKS):
        assert len(errors) == 21
        assert max(errors.values()) < TOLERANCE, errors


def torch_on_rank(rank: int) -> list[tuple[float, int]]:
    traffic, found = Traffic(), []
    make_groups(ulysses_degree=1, ring_degree=RANKS)
    positions = torch.from_numpy(RelayLayout(SHAPES[0].lengths, 1, RANKS).positions_of(rank))
    for method in ROTATE_METHODS:
        traffic.reset()
        with CountingFunctionalCollectives(rank, [peer // 2 != rank // 2 for peer in range(RANKS)], traffic):
            error = largest_error(TorchRing(method), SHAPES[0], positions, torch.float32)
        found.append((error, traffic.far_bytes))
    return found


def test_the_ring_of_torch_does_the_same_work_and_relays_as_much() -> None:
    results = run_ranks(torch_on_rank, RANKS)
    block_bytes = 2 * SHAPES[0].num_kv_heads * 64 * SHAPES[0].num_tokens // RANKS * 4
    for i in range(len(ROTATE_METHODS)):
        assert max(result[i][0] for result in results) < 1e-5
        # K/V three hops forward and three back, gradients four; of the four ranks two have a far neighbour
        assert sum(result[i][1] for result in results) == 2 * (3 + 3 + 4) * block_bytes


def bytes_on_rank(rank: int) -> tuple[int, int, int]:
    """What ours, the relay and the relay that goes forward again send to the other node, bfloat16."""
    degrees, traffic, sent = (2, 2), Traffic(), []
    groups = make_groups(ulysses_degree=degrees[0], ring_degree=degrees[1])
    groups = counted(groups, lambda other: other // 2, traffic)
    ours, relays = Layout(GQA7.lengths, *degrees), RelayLayout(GQA7.lengths, *degrees)
    for layout, attend in [
        (ours, make_attend(ours, groups)),
        (relays, Attention2D(relays, groups)),
        (relays, Attention2D(relays, groups, forward_again=True)),
    ]:
        local = make_tensors(GQA7).at(torch.from_numpy(layout.positions_of(rank)), torch.bfloat16)
        traffic.reset()
        out = attend(*local[:3], scale=GQA7.scale)
        torch.autograd.grad(out, local[:3], local.dout)
        sent.append(traffic.far_bytes)
    return sent[0], sent[1], sent[2]


def test_two_nodes_exchange_less_than_half_of_what_they_relay() -> None:
    ours, relay, again = (sum(sent) for sent in zip(*run_ranks(bytes_on_rank, RANKS), strict=True))
    block_bytes = 2 * GQA7.num_kv_heads * 64 * GQA7.num_tokens // 2 * torch.bfloat16.itemsize
    assert (ours, relay, again) == (4.5 * block_bytes, 12 * block_bytes, 14 * block_bytes)
    assert ours / relay <= 1 / 2


def test_what_a_scheme_cannot_do_is_said() -> None:
    found = refusals(Shape("odd", 30, 5, (64, 64)), num_ranks=4)
    assert [note.partition(":")[2].partition(":")[0] for note in found] == [
        " no peer's Ulysses-only",
        " no relay on 2D",
        " no torch ring",
    ]
    assert refusals(Shape("few", 3, 3, (64,)), num_ranks=4)[-1].startswith("few: no Ulysses-only of ours")


@pytest.mark.parametrize(("heads", "kv_heads", "refused"), [(28, 4, True), (32, 4, False), (24, 3, True)])
def test_ulysses_of_the_peers_needs_heads_that_divide(heads: int, kv_heads: int, refused: bool) -> None:
    assert (refusal(heads, kv_heads, 8) is not None) is refused
