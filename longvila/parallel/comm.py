"""The few messages of sequence parallelism, behind one small interface.

A group of one needs no torch.distributed, so that one process and many take the same path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import torch.distributed as dist
from torch import Tensor


class Work(Protocol):
    """Messages under way."""

    def wait(self) -> Any:
        """Return when the messages have arrived and the sent tensors may be written again."""
        ...


class _Done:
    """The work of a group of one: nothing is under way."""

    def wait(self) -> None:
        pass


class _AllOf:
    """Several works as one. Holds the tensors, so that none is freed while it is on its way."""

    def __init__(self, works: Sequence[Work], tensors: Sequence[Tensor]) -> None:
        self._works = works
        self._tensors = tensors

    def wait(self) -> None:
        for work in self._works:
            work.wait()
        self._tensors = ()


class Group(ABC):
    """The messages that sequence parallelism needs, among ``size`` ranks of which this one is ``rank``."""

    rank: int
    size: int

    @abstractmethod
    def all_to_all(
        self, output: Tensor, source: Tensor, *, output_splits: Sequence[int], source_splits: Sequence[int]
    ) -> Work:
        """Send ``source_splits[i]`` rows of ``source`` to rank i, in order; both tensors are contiguous."""

    @abstractmethod
    def exchange(
        self, *, sends: Sequence[tuple[int, Tensor]], receives: Sequence[tuple[int, Tensor]]
    ) -> Work:
        """Send and receive whole tensors, each with its peer's rank in this group; skip empty ones."""

    @abstractmethod
    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum ``tensor`` over the group in place and return it. No gradient passes through."""

    @abstractmethod
    def gather_objects(self, value: Any) -> list[Any]:
        """Return every rank's small picklable ``value``, in the order of ranks."""

    @abstractmethod
    def barrier(self) -> None:
        """Return when every rank has come here."""


class OneProcess(Group):
    """A group of one. Needs no torch.distributed."""

    rank = 0
    size = 1

    def all_to_all(
        self, output: Tensor, source: Tensor, *, output_splits: Sequence[int], source_splits: Sequence[int]
    ) -> Work:
        """Copy."""
        assert list(output_splits) == list(source_splits) == [len(source)]
        output.copy_(source)
        return _Done()

    def exchange(
        self, *, sends: Sequence[tuple[int, Tensor]], receives: Sequence[tuple[int, Tensor]]
    ) -> Work:
        """Nobody is there to send to."""
        assert not (*sends, *receives), "a group of one has no peers"
        return _Done()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return ``tensor`` as it is."""
        return tensor

    def gather_objects(self, value: Any) -> list[Any]:
        """Return ``[value]``."""
        return [value]

    def barrier(self) -> None:
        """Return at once."""


class TorchGroup(Group):
    """A group of processes of torch.distributed (gloo or NCCL)."""

    def __init__(self, process_group: dist.ProcessGroup) -> None:
        self._group = process_group
        self.rank = dist.get_rank(process_group)
        self.size = dist.get_world_size(process_group)

    def all_to_all(
        self, output: Tensor, source: Tensor, *, output_splits: Sequence[int], source_splits: Sequence[int]
    ) -> Work:
        """Start one ``all_to_all_single``."""
        work = dist.all_to_all_single(
            output, source, list(output_splits), list(source_splits), group=self._group, async_op=True
        )
        assert work is not None
        return _AllOf([work], [output, source])

    def exchange(
        self, *, sends: Sequence[tuple[int, Tensor]], receives: Sequence[tuple[int, Tensor]]
    ) -> Work:
        """Start all messages as one batch, so that NCCL cannot deadlock on their order."""
        pairs = [(dist.isend, *send) for send in sends] + [(dist.irecv, *receive) for receive in receives]
        operations = [
            dist.P2POp(operation, tensor, group=self._group, group_peer=peer)
            for operation, peer, tensor in pairs
            if tensor.numel()
        ]
        works = dist.batch_isend_irecv(operations) if operations else []
        return _AllOf(works, [tensor for _, _, tensor in pairs])

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum in place."""
        dist.all_reduce(tensor, group=self._group)
        return tensor

    def gather_objects(self, value: Any) -> list[Any]:
        """Gather through pickles: for small things, outside of the hot path."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def barrier(self) -> None:
        """Wait for all."""
        dist.barrier(group=self._group)
