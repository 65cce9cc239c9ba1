"""The few messages of sequence parallelism, behind one small interface.

A group of one needs no torch.distributed, so that one process and many take the same path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch.distributed as dist
from torch import Tensor

from longvila.parallel.attendance import Attendance


class Work(Protocol):
    """Messages under way."""

    def wait(self) -> Any:
        """Return when the messages have arrived and the sent tensors may be written again."""
        ...


class _Done:
    def wait(self) -> None:
        pass


DONE: Work = _Done()
"""The work of a group of one: nothing is under way."""


Naming = Callable[[], AbstractContextManager[None]]
"""What says who is lost when messages fail within."""


class _AllOf:
    """Several works as one. Holds the tensors, so that none is freed while it is on its way."""

    def __init__(self, works: Sequence[Work], tensors: Sequence[Tensor], naming: Naming) -> None:
        self._works = works
        self._tensors = tensors
        self._naming = naming

    def wait(self) -> None:
        with self._naming():
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
        return DONE

    def exchange(
        self, *, sends: Sequence[tuple[int, Tensor]], receives: Sequence[tuple[int, Tensor]]
    ) -> Work:
        """Nobody is there to send to."""
        assert not (*sends, *receives), "a group of one has no peers"
        return DONE

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return ``tensor`` as it is."""
        return tensor

    def gather_objects(self, value: Any) -> list[Any]:
        """Return ``[value]``."""
        return [value]

    def barrier(self) -> None:
        """Return at once."""


class TorchGroup(Group):
    """A group of processes of torch.distributed (gloo or NCCL).

    With ``attendance``, PeerLost says who is lost when messages fail.
    """

    def __init__(self, process_group: dist.ProcessGroup, attendance: Attendance | None = None) -> None:
        self._group = process_group
        self._naming = attendance.naming_the_lost if attendance is not None else nullcontext
        self.rank = dist.get_rank(process_group)
        self.size = dist.get_world_size(process_group)

    def all_to_all(
        self, output: Tensor, source: Tensor, *, output_splits: Sequence[int], source_splits: Sequence[int]
    ) -> Work:
        """Start one ``all_to_all_single``; on gloo, whose own goes one way at a time, plain messages."""
        if output.device.type == "cpu":
            return self._one_by_one(output.split(list(output_splits)), source.split(list(source_splits)))
        with self._naming():
            work = dist.all_to_all_single(
                output, source, list(output_splits), list(source_splits), group=self._group, async_op=True
            )
        assert work is not None
        return _AllOf([work], [output, source], self._naming)

    def exchange(
        self, *, sends: Sequence[tuple[int, Tensor]], receives: Sequence[tuple[int, Tensor]]
    ) -> Work:
        """Start all messages as one batch, so that NCCL cannot deadlock on their order.

        Receives come first: gloo tells the sender that it may send, and that word would wait behind the data
        of an own message, as if the link went one way at a time.
        """
        pairs = [(dist.irecv, *receive) for receive in receives] + [(dist.isend, *send) for send in sends]
        operations = [
            dist.P2POp(operation, tensor, group=self._group, group_peer=peer)
            for operation, peer, tensor in pairs
            if tensor.numel()
        ]
        with self._naming():
            works = dist.batch_isend_irecv(operations) if operations else []
        return _AllOf(works, [tensor for _, _, tensor in pairs], self._naming)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum in place."""
        with self._naming():
            dist.all_reduce(tensor, group=self._group)
        return tensor

    def gather_objects(self, value: Any) -> list[Any]:
        """Gather through pickles: for small things, outside of the hot path."""
        values: list[Any] = [None] * self.size
        with self._naming():
            dist.all_gather_object(values, value, group=self._group)
        return values

    def barrier(self) -> None:
        """Wait for all."""
        with self._naming():
            dist.barrier(group=self._group)

    def _one_by_one(self, outputs: Sequence[Tensor], sources: Sequence[Tensor]) -> Work:
        outputs[self.rank].copy_(sources[self.rank])
        others = [peer for peer in range(self.size) if peer != self.rank]
        return self.exchange(
            sends=[(peer, sources[peer]) for peer in others],
            receives=[(peer, outputs[peer]) for peer in others],
        )
