"""Groups that count what they send to the other node, and groups that send nothing.

The count is of tensors' bytes as they are handed to the network: exact, and the same on every machine. What
the link really carried, headers included, is counted by the kernel; see ``nodes.Node.sent_bytes``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from longvila.parallel import Groups
from longvila.parallel.comm import Group, Work


@dataclass
class Traffic:
    """What one rank has sent since the last reset."""

    far_bytes: int = 0  # to ranks on the other node
    near_bytes: int = 0
    messages: int = 0

    def add(self, size_bytes: int, *, far: bool) -> None:
        """Count one message."""
        if far:
            self.far_bytes += size_bytes
        else:
            self.near_bytes += size_bytes
        self.messages += bool(size_bytes)

    def reset(self) -> None:
        """Start from nothing."""
        self.far_bytes = self.near_bytes = self.messages = 0


class CountingGroup(Group):
    """Counts the messages of ``inner``; ``far[i]`` says whether member i is on the other node."""

    def __init__(self, inner: Group, far: Sequence[bool], traffic: Traffic) -> None:
        self.rank, self.size = inner.rank, inner.size
        self._inner, self._far, self._traffic = inner, tuple(far), traffic

    def all_to_all(
        self, output: Tensor, source: Tensor, *, output_splits: Sequence[int], source_splits: Sequence[int]
    ) -> Work:
        """Count what goes to others, and send."""
        row_bytes = source.nbytes // max(len(source), 1)
        for peer, rows in enumerate(source_splits):
            if peer != self.rank:
                self._traffic.add(rows * row_bytes, far=self._far[peer])
        return self._inner.all_to_all(
            output, source, output_splits=output_splits, source_splits=source_splits
        )

    def exchange(
        self, *, sends: Sequence[tuple[int, Tensor]], receives: Sequence[tuple[int, Tensor]]
    ) -> Work:
        """Count what is sent, and send."""
        for peer, tensor in sends:
            self._traffic.add(tensor.nbytes, far=self._far[peer])
        return self._inner.exchange(sends=sends, receives=receives)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Not counted: no layer of attention needs it."""
        return self._inner.all_reduce(tensor)

    def gather_objects(self, value: Any) -> list[Any]:
        """Not counted: outside of the hot path."""
        return self._inner.gather_objects(value)

    def barrier(self) -> None:
        """Not counted: no layer of attention needs it."""
        self._inner.barrier()


class _Arrived:
    """The work of a message that was never sent."""

    def wait(self) -> None:
        pass


class SilentGroup(Group):
    """A group that sends nothing and receives zeros: what is left is the time of computing and copying."""

    def __init__(self, inner: Group) -> None:
        self.rank, self.size = inner.rank, inner.size

    def all_to_all(
        self, output: Tensor, source: Tensor, *, output_splits: Sequence[int], source_splits: Sequence[int]
    ) -> Work:
        """Receive zeros."""
        assert len(output) == sum(output_splits)
        assert len(source) == sum(source_splits)
        output.zero_()
        return _Arrived()

    def exchange(
        self, *, sends: Sequence[tuple[int, Tensor]], receives: Sequence[tuple[int, Tensor]]
    ) -> Work:
        """Receive zeros."""
        del sends
        for _, tensor in receives:
            tensor.zero_()
        return _Arrived()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the own value."""
        return tensor

    def gather_objects(self, value: Any) -> list[Any]:
        """Return the own value for everybody."""
        return [value] * self.size

    def barrier(self) -> None:
        """Do not wait."""


class CountingFunctionalCollectives(TorchDispatchMode):
    """Counts torch's functional collectives over the world, for code that takes no group of ours.

    An all-gather is counted as gloo does it: every rank's block goes round from neighbour to neighbour.
    """

    def __init__(self, rank: int, far: Sequence[bool], traffic: Traffic) -> None:
        super().__init__()
        self._rank, self._far, self._traffic = rank, tuple(far), traffic

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, and go on."""
        size = len(self._far)
        if func is torch.ops._c10d_functional.all_to_all_single.default:
            row_bytes = args[0].nbytes // max(len(args[0]), 1)
            for peer, rows in enumerate(args[2]):
                if peer != self._rank:
                    self._traffic.add(rows * row_bytes, far=self._far[peer])
        elif func is torch.ops._c10d_functional.all_gather_into_tensor.default:
            for _ in range(size - 1):
                self._traffic.add(args[0].nbytes, far=self._far[(self._rank + 1) % size])
        return func(*args, **(kwargs or {}))


def counted(groups: Groups, node_of: Callable[[int], int], traffic: Traffic) -> Groups:
    """Return groups that do the same and count it. The world must be one sequence's ranks."""
    assert groups.dp_size == 1
    degree = groups.ulysses_degree
    members = {
        "ulysses": [groups.ring_rank * degree + u for u in range(degree)],
        "ring": [r * degree + groups.ulysses_rank for r in range(groups.ring_degree)],
        "sp": list(range(groups.sp_size)),
    }
    own = node_of(groups.rank)

    def wrap(name: str) -> Group:
        far = [node_of(rank) != own for rank in members[name]]
        return CountingGroup(getattr(groups, name), far, traffic)

    return replace(groups, ulysses=wrap("ulysses"), ring=wrap("ring"), sp=wrap("sp"))


def silenced(groups: Groups) -> Groups:
    """Return groups in which nobody hears anybody."""
    return replace(
        groups,
        ulysses=SilentGroup(groups.ulysses),
        ring=SilentGroup(groups.ring),
        sp=SilentGroup(groups.sp),
    )
