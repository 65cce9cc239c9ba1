"""Groups of which only one rank exists: what the others would send is made up in place.

Memory and computation of the one rank are those of the real thing; the values are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from longvila.parallel.comm import DONE, Group, OneProcess, Work
from longvila.parallel.groups import Groups


class MadeUpGroup(Group):
    """Rank 0 of ``size`` ranks. What arrives are small random numbers."""

    rank = 0

    def __init__(self, size: int) -> None:
        self.size = size

    def all_to_all(
        self, output: Tensor, source: Tensor, *, output_splits: Sequence[int], source_splits: Sequence[int]
    ) -> Work:
        """Make up what arrives."""
        output.normal_(std=0.1)
        return DONE

    def exchange(
        self, *, sends: Sequence[tuple[int, Tensor]], receives: Sequence[tuple[int, Tensor]]
    ) -> Work:
        """Make up what arrives."""
        for _, tensor in receives:
            tensor.normal_(std=0.1)
        return DONE

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """As if the others had zeros."""
        return tensor

    def gather_objects(self, value: Any) -> list[Any]:
        """As if the others had the same."""
        return [value] * self.size

    def barrier(self) -> None:
        """Nobody is late."""


def made_up_groups(ulysses_degree: int, ring_degree: int) -> Groups:
    """Return the groups of rank 0."""

    def group(size: int) -> Group:
        return MadeUpGroup(size) if size > 1 else OneProcess()

    sp_size = ulysses_degree * ring_degree
    return Groups(
        rank=0,
        world_size=sp_size,
        ulysses_degree=ulysses_degree,
        ring_degree=ring_degree,
        ulysses=group(ulysses_degree),
        ring=group(ring_degree),
        sp=group(sp_size),
        world=group(sp_size),
    )
