"""This process among the trainer's processes: rank, device, and the few numbers that all agree on."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from longvila.errors import ConfigError
from longvila.training.spec import RunSpec

_SHORTEST_TIMEOUT_S = 600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class World:
    """Rank, size and device of this process."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes what is written once."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums of ``values`` over all processes, in float64 and the same everywhere (collective)."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def max(self, value: int) -> int:
        """The largest ``value`` of all processes, the same everywhere (collective)."""
        return self.maxima([value])[0]

    def maxima(self, values: Sequence[int]) -> list[int]:
        """The largest of each of ``values`` over all processes, the same everywhere (collective)."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.tolist()

    def barrier(self) -> None:
        """Return when every process has come here. Over gloo, so that no GPU is kept busy waiting."""
        self.sum([0.0])


@contextmanager
def joined(spec: RunSpec) -> Iterator[World]:
    """Join the processes that torchrun started, and leave them at the end.

    The torch engine needs no other process, so it joins none. Raises ``ConfigError`` when the number of
    processes is not the one that the stage asks for.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    wanted = 1 if spec.engine == "torch" else spec.stage.num_processes
    if wanted is not None and wanted != size:
        raise ConfigError(
            f"stage {spec.stage.name} asks for num_processes={wanted}, but {size} were started. "
            f"Start torchrun with --nproc-per-node={wanted}, or change num_processes"
        )
    device = _device(spec)
    if spec.engine == "torch":
        yield World(rank=0, size=1, device=device)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_collective_timeout(spec.stage.step_timeout_s))
    try:
        yield World(rank=rank, size=size, device=device)
    finally:
        dist.destroy_process_group()


def _collective_timeout(step_timeout_s: float) -> datetime.timedelta:
    """Longer than the supervisor's patience, so that it comes first and can have all stacks written."""
    return datetime.timedelta(seconds=max(_SHORTEST_TIMEOUT_S, 2 * step_timeout_s))


def _device(spec: RunSpec) -> torch.device:
    available = torch.cuda.is_available()
    if spec.device == "cuda" and not available:
        raise ConfigError("device=cuda, but torch sees no GPU here. Use device=cpu, or run on a GPU machine")
    if spec.device == "cpu" or not available:
        return torch.device("cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
