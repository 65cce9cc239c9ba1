"""The ways to spread one attention layer over ranks: ours and our peers'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.counting import CountingFunctionalCollectives, Traffic, counted, silenced
from benchmarks.mmsp.shapes import Shape
from benchmarks.nodes import Nodes
from benchmarks.peers.relay import Attention2D, RelayLayout
from benchmarks.peers.torch_ring import ROTATE_METHODS, TorchRing
from benchmarks.peers.ulysses import UlyssesAttention, positions_of, refusal
from longvila.parallel import Groups, Layout, make_attend, make_groups

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q_BHtD, k_BhtD, v_BhtD -> out_BtHD"""


@dataclass(frozen=True)
class Scheme:
    """One way, on one rank. ``silent`` does the same without sending anything, where that can be had."""

    name: str
    degrees: tuple[int, int]  # ulysses, ring
    positions: Tensor
    attend: Attend
    silent: Attend | None = None
    counter: Callable[[], AbstractContextManager[object]] = nullcontext

    @property
    def is_ours(self) -> bool:
        """Whether it is ours or a peer's."""
        return self.name.startswith("ours")


@dataclass
class World:
    """This rank, the nodes, and groups of every pair of degrees; making groups is collective."""

    rank: int
    num_ranks: int
    nodes: Nodes
    traffic: Traffic = field(default_factory=Traffic)
    _groups: dict[tuple[int, int], Groups] = field(default_factory=dict)

    @property
    def per_node(self) -> int:
        """Ranks on one node."""
        return self.num_ranks // len(self.nodes.nodes)

    @property
    def node(self) -> int:
        """The number of this rank's node."""
        return self.node_of(self.rank)

    @property
    def leads_node(self) -> bool:
        """Whether this rank reads the counters of its node."""
        return self.rank % self.per_node == 0

    def node_of(self, rank: int) -> int:
        """Return the number of a rank's node."""
        return self.nodes.node_of(rank, self.num_ranks)

    def far(self) -> list[bool]:
        """Return for each rank whether it is on the other node."""
        return [self.node_of(rank) != self.node for rank in range(self.num_ranks)]

    def groups(self, degrees: tuple[int, int]) -> Groups:
        """Return groups that count; made on the first call, which is collective."""
        if degrees not in self._groups:
            plain = make_groups(ulysses_degree=degrees[0], ring_degree=degrees[1])
            self._groups[degrees] = counted(plain, self.node_of, self.traffic)
        return self._groups[degrees]


def make_schemes(shape: Shape, world: World, *, forward_again: bool) -> list[Scheme]:
    """Return every scheme that can do the shape; the same, in the same order, on every rank."""
    return [
        *_ours(shape, world),
        *_relays(shape, world, forward_again),
        *_torch(shape, world),
        *_ulysses(shape, world),
    ]


def refusals(shape: Shape, num_ranks: int) -> list[str]:
    """Say which schemes cannot do the shape, and why."""
    found = []
    if (why := refusal(shape.num_heads, shape.num_kv_heads, num_ranks)) is not None:
        found.append(f"{shape.name}: no peer's Ulysses-only: {why}")
    if (why := refusal(shape.num_heads, shape.num_kv_heads, num_ranks // 2)) is not None:
        found.append(f"{shape.name}: no relay on 2D: {why}")
    if shape.num_heads < num_ranks:
        found.append(f"{shape.name}: no Ulysses-only of ours: {shape.num_heads} heads for {num_ranks} ranks")
    if len(shape.lengths) > 1:
        found.append(f"{shape.name}: no torch ring: it cannot keep packed documents apart")
    return found


def two_d(world: World) -> tuple[int, int]:
    """Ulysses inside a node, ring between the nodes."""
    return world.per_node, world.num_ranks // world.per_node


def _ours(shape: Shape, world: World) -> Iterator[Scheme]:
    kinds = {
        "2d": (two_d(world), False),
        "2d, keys kept": (two_d(world), True),
        "ring": ((1, world.num_ranks), False),
        "ulysses": ((world.num_ranks, 1), False),
    }
    if shape.num_heads < world.num_ranks:
        del kinds["ulysses"]
    for name, (degrees, keep) in kinds.items():
        layout = Layout(shape.lengths, *degrees)
        assert layout.padded_length == shape.num_tokens, "padding would make it different work"
        groups = world.groups(degrees)
        yield Scheme(
            name=f"ours {name}",
            degrees=degrees,
            positions=torch.from_numpy(layout.positions_of(world.rank)),
            attend=_with_scale(make_attend(layout, groups, keep_keys=keep), shape),
            silent=_with_scale(make_attend(layout, silenced(groups), keep_keys=keep), shape),
        )


def _relays(shape: Shape, world: World, forward_again: bool) -> Iterator[Scheme]:
    kinds = {"2d": (two_d(world), False), "ring": ((1, world.num_ranks), False)}
    if forward_again:
        kinds["2d, forward again"] = (two_d(world), True)
    for name, (degrees, again) in kinds.items():
        if refusal(shape.num_heads, shape.num_kv_heads, degrees[0]) is not None:
            continue
        layout = RelayLayout(shape.lengths, *degrees)
        groups = world.groups(degrees)
        yield Scheme(
            name=f"relay {name}",
            degrees=degrees,
            positions=torch.from_numpy(layout.positions_of(world.rank)),
            attend=_with_scale(Attention2D(layout, groups, forward_again=again), shape),
            silent=_with_scale(Attention2D(layout, silenced(groups), forward_again=again), shape),
        )


def _torch(shape: Shape, world: World) -> Iterator[Scheme]:
    if len(shape.lengths) > 1:
        return
    layout = RelayLayout(shape.lengths, 1, world.num_ranks)
    for method in ROTATE_METHODS:
        yield Scheme(
            name=f"torch ring ({method})",
            degrees=(1, world.num_ranks),
            positions=torch.from_numpy(layout.positions_of(world.rank)),
            attend=_with_scale(TorchRing(method), shape),
            counter=lambda: CountingFunctionalCollectives(world.rank, world.far(), world.traffic),
        )


def _ulysses(shape: Shape, world: World) -> Iterator[Scheme]:
    if refusal(shape.num_heads, shape.num_kv_heads, world.num_ranks) is not None:
        return
    groups = world.groups((world.num_ranks, 1))
    yield Scheme(
        name="ulysses",
        degrees=(world.num_ranks, 1),
        positions=torch.from_numpy(positions_of(world.rank, world.num_ranks, shape.num_tokens)),
        attend=_with_scale(UlyssesAttention(shape.lengths, groups.ulysses), shape),
        silent=_with_scale(UlyssesAttention(shape.lengths, silenced(groups).ulysses), shape),
    )


def _with_scale(attend: Callable[..., Tensor], shape: Shape) -> Attend:
    return lambda q, k, v: attend(q, k, v, scale=shape.scale)
