"""All ranks of a layout in one process: a thread each, messages as copies on one device.

Proves a division on a single GPU, and at degrees for which a machine has no room for processes. On CUDA all
threads share a stream, so their kernels run one after another; there, call ``function.attend`` and
``function.gradients`` instead of autograd, which runs every backward pass of a device in one thread.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from torch import Tensor

from longvila.parallel.comm import DONE, Group, OneProcess, Work
from longvila.parallel.groups import Groups, RankLists, check_degrees, group_ranks

Result = TypeVar("Result")


class RankFailed(RuntimeError):
    """A message will never come, because a rank has ended or raised."""


class Mailbox:
    """Where the ranks of one group leave what they send, in order for each pair of ranks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[tuple[int, int], deque[Any]] = defaultdict(deque)
        self._ended: set[int] = set()

    def put(self, sender: int, receiver: int, value: Any) -> None:
        """Leave a value for ``receiver``."""
        with self._changed:
            self._waiting[sender, receiver].append(value)
            self._changed.notify_all()

    def take(self, sender: int, receiver: int) -> Any:
        """Return the next value from ``sender``, waiting for it as long as it is at work."""
        with self._changed:
            while not self._waiting[sender, receiver]:
                if sender in self._ended:
                    raise RankFailed(f"rank {sender} of this group has ended without sending what is needed")
                self._changed.wait()
            return self._waiting[sender, receiver].popleft()

    def end(self, sender: int) -> None:
        """Say that ``sender`` will send nothing more."""
        with self._changed:
            self._ended.add(sender)
            self._changed.notify_all()


class _Arrivals:
    """Tensors to be filled with what arrives."""

    def __init__(self, mailbox: Mailbox, rank: int, receives: Sequence[tuple[int, Tensor]]) -> None:
        self._mailbox, self._rank, self._receives = mailbox, rank, receives

    def wait(self) -> None:
        for sender, tensor in self._receives:
            tensor.copy_(self._mailbox.take(sender, self._rank))
        self._receives = ()


class ThreadGroup(Group):
    """A group of threads of this process."""

    def __init__(self, mailbox: Mailbox, rank: int, size: int) -> None:
        self._mailbox = mailbox
        self.rank, self.size = rank, size

    def all_to_all(
        self, output: Tensor, source: Tensor, *, output_splits: Sequence[int], source_splits: Sequence[int]
    ) -> Work:
        """Leave a slice for every rank; the work takes one from each."""
        for peer, rows in enumerate(source.split(list(source_splits))):
            self._mailbox.put(self.rank, peer, rows)
        return _Arrivals(self._mailbox, self.rank, list(enumerate(output.split(list(output_splits)))))

    def exchange(
        self, *, sends: Sequence[tuple[int, Tensor]], receives: Sequence[tuple[int, Tensor]]
    ) -> Work:
        """Leave whole tensors; the work takes those that are expected."""
        for peer, tensor in sends:
            if tensor.numel():
                self._mailbox.put(self.rank, peer, tensor)
        expected = [(peer, tensor) for peer, tensor in receives if tensor.numel()]
        return _Arrivals(self._mailbox, self.rank, expected) if expected else DONE

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum in place, in the same order on every rank."""
        tensors = self.gather_objects(tensor.clone())
        tensor.copy_(tensors[0])
        for other in tensors[1:]:
            tensor += other
        return tensor

    def gather_objects(self, value: Any) -> list[Any]:
        """Return every rank's value."""
        for peer in range(self.size):
            self._mailbox.put(self.rank, peer, value)
        return [self._mailbox.take(peer, self.rank) for peer in range(self.size)]

    def barrier(self) -> None:
        """Wait for all."""
        self.gather_objects(None)

    def end(self) -> None:
        """Say that this rank will send nothing more."""
        self._mailbox.end(self.rank)


def run_in_process(
    work: Callable[[Groups], Result],
    *,
    ulysses_degree: int = 1,
    ring_degree: int = 1,
    world_size: int | None = None,
) -> list[Result]:
    """Call ``work`` with the groups of every rank, each in a thread; return the results in their order.

    ``world_size`` is that of one sequence by default. The first error of a rank is raised. A model that ranks
    change while they run (RoPE that depends on lengths, gradients) must be each rank's own.
    """
    world_size = world_size or ulysses_degree * ring_degree
    all_groups = _all_groups(ulysses_degree, ring_degree, world_size)

    def on_rank(groups: Groups) -> Result:
        try:
            return work(groups)
        finally:
            for group in (groups.ulysses, groups.ring, groups.sp, groups.world):
                if isinstance(group, ThreadGroup):
                    group.end()

    with ThreadPoolExecutor(world_size) as pool:
        futures = [pool.submit(on_rank, groups) for groups in all_groups]
        errors = [error for future in futures if (error := future.exception()) is not None]
    causes = [error for error in errors if not isinstance(error, RankFailed)] or errors
    if causes:
        raise causes[0]
    return [future.result() for future in futures]


def _all_groups(ulysses_degree: int, ring_degree: int, world_size: int) -> list[Groups]:
    check_degrees(ulysses_degree=ulysses_degree, ring_degree=ring_degree, world_size=world_size)
    ulysses, ring, sp = group_ranks(
        ulysses_degree=ulysses_degree, ring_degree=ring_degree, world_size=world_size
    )
    in_ulysses, in_ring, in_sp = (_groups_of(lists) for lists in (ulysses, ring, sp))
    in_world = _groups_of((tuple(range(world_size)),))
    return [
        Groups(
            rank=rank,
            world_size=world_size,
            ulysses_degree=ulysses_degree,
            ring_degree=ring_degree,
            ulysses=in_ulysses[rank],
            ring=in_ring[rank],
            sp=in_sp[rank],
            world=in_world[rank],
        )
        for rank in range(world_size)
    ]


def _groups_of(rank_lists: RankLists) -> dict[int, Group]:
    """Return the group of each rank."""
    groups: dict[int, Group] = {}
    for ranks in rank_lists:
        mailbox = Mailbox()
        for place, rank in enumerate(ranks):
            groups[rank] = OneProcess() if len(ranks) == 1 else ThreadGroup(mailbox, place, len(ranks))
    return groups
