"""Which ranks share a sequence, and the few messages they exchange.

World = dp × ring × ulysses, Ulysses innermost: consecutive ranks, which share a node, exchange heads;
ring neighbours, which may sit on different nodes, exchange slices of K and V.

A degree of 1 is a group of one and never ``None``: one process and many take the same path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from longvila.errors import ConfigError
from longvila.parallel.attendance import Attendance, attendance_of
from longvila.parallel.comm import Group, OneProcess, TorchGroup

RankLists = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Groups:
    """Where this rank stands, and whom it talks to."""

    rank: int
    world_size: int
    ulysses_degree: int
    ring_degree: int
    ulysses: Group
    ring: Group
    sp: Group
    world: Group
    attendance: Attendance | None = None

    @contextmanager
    def naming_the_lost(self) -> Iterator[None]:
        """Raise PeerLost with the ranks to blame when messages fail within, whoever sends them."""
        with self.attendance.naming_the_lost() if self.attendance is not None else nullcontext():
            yield

    @property
    def sp_size(self) -> int:
        """Ranks that share one sequence."""
        return self.ulysses_degree * self.ring_degree

    @property
    def sp_rank(self) -> int:
        """This rank's place among those that share its sequence."""
        return self.rank % self.sp_size

    @property
    def dp_size(self) -> int:
        """How many sequences are worked on at once."""
        return self.world_size // self.sp_size

    @property
    def dp_rank(self) -> int:
        """Which of them this rank works on."""
        return self.rank // self.sp_size

    @property
    def ulysses_rank(self) -> int:
        """This rank's place among those that exchange heads."""
        return self.rank % self.ulysses_degree

    @property
    def ring_rank(self) -> int:
        """This rank's place among those that exchange K and V."""
        return self.sp_rank // self.ulysses_degree


def make_groups(*, ulysses_degree: int = 1, ring_degree: int = 1) -> Groups:
    """Divide the world into groups. Collective: every rank calls it, with the same degrees.

    Without torch.distributed, both degrees must be 1 and the world is this process.
    Raises ConfigError when the degrees do not fit the world.
    """
    return make_groups_of([(ulysses_degree, ring_degree)])[0]


def make_groups_of(degrees: Sequence[tuple[int, int]]) -> tuple[Groups, ...]:
    """Divide one world in several ways, by pairs of (ulysses_degree, ring_degree), in the order given.

    Collective, as ``make_groups``. Where the same ranks talk to each other, within a division or in two of
    them, they do so through one process group.
    """
    started = dist.is_available() and dist.is_initialized()
    world_size = dist.get_world_size() if started else 1
    rank = dist.get_rank() if started else 0
    attendance = None
    if world_size > 1:
        store = dist.distributed_c10d._get_default_store()
        attendance = attendance_of(store, rank=rank, world_size=world_size)
    made = _Made(attendance)
    return tuple(_divide(ulysses, ring, rank, world_size, made) for ulysses, ring in degrees)


def _divide(ulysses_degree: int, ring_degree: int, rank: int, world_size: int, made: _Made) -> Groups:
    check_degrees(ulysses_degree=ulysses_degree, ring_degree=ring_degree, world_size=world_size)
    ulysses_ranks, ring_ranks, sp_ranks = group_ranks(
        ulysses_degree=ulysses_degree, ring_degree=ring_degree, world_size=world_size
    )
    return Groups(
        rank=rank,
        world_size=world_size,
        ulysses_degree=ulysses_degree,
        ring_degree=ring_degree,
        ulysses=made.own(ulysses_ranks),
        ring=made.own(ring_ranks),
        sp=made.own(sp_ranks),
        world=made.own((tuple(range(world_size)),)),
        attendance=made.attendance,
    )


def check_degrees(*, ulysses_degree: int, ring_degree: int, world_size: int) -> None:
    """Raise ConfigError when the two degrees cannot divide a world of that size."""
    given = f"ulysses_degree={ulysses_degree}, ring_degree={ring_degree}"
    if ulysses_degree < 1 or ring_degree < 1:
        raise ConfigError(f"{given}: both must be at least 1. Use 1 to turn one of them off.")
    sp_size = ulysses_degree * ring_degree
    if world_size % sp_size:
        raise ConfigError(
            f"{given}: their product {sp_size} does not divide the world of {world_size} process(es). "
            f"Start a multiple of {sp_size} processes, or choose degrees whose product is one of "
            f"{[size for size in range(1, world_size + 1) if world_size % size == 0]}."
        )


def group_ranks(
    *, ulysses_degree: int, ring_degree: int, world_size: int
) -> tuple[RankLists, RankLists, RankLists]:
    """Return the rank lists of all Ulysses groups, all ring groups and all sp groups."""
    sp_size = ulysses_degree * ring_degree
    ulysses = tuple(
        tuple(range(first, first + ulysses_degree)) for first in range(0, world_size, ulysses_degree)
    )
    ring = tuple(
        tuple(range(first + u, first + sp_size, ulysses_degree))
        for first in range(0, world_size, sp_size)
        for u in range(ulysses_degree)
    )
    sp = tuple(tuple(range(first, first + sp_size)) for first in range(0, world_size, sp_size))
    return ulysses, ring, sp


class _Made:
    """The process groups of one world, each made once."""

    def __init__(self, attendance: Attendance | None) -> None:
        self.attendance = attendance
        self._groups: dict[RankLists, Group] = {}

    def own(self, rank_lists: RankLists) -> Group:
        """Make all groups of one kind, as torch.distributed asks of every rank, and return this rank's."""
        if len(rank_lists[0]) == 1:
            return OneProcess()
        if rank_lists not in self._groups:
            self._groups[rank_lists] = TorchGroup(_process_group(rank_lists), self.attendance)
        return self._groups[rank_lists]


def _process_group(rank_lists: RankLists) -> dist.ProcessGroup:
    if len(rank_lists) == 1:
        world = dist.group.WORLD
        assert world is not None
        return world
    store: Any = dist.distributed_c10d._get_default_store()
    timeout = store.timeout  # the world's, which new groups do not inherit
    own, _ = dist.new_subgroups_by_enumeration([list(ranks) for ranks in rank_lists], timeout=timeout)
    assert isinstance(own, dist.ProcessGroup), "every rank is in one group of each kind"
    return own
