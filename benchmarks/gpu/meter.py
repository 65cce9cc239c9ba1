"""The peak of memory in use: measured on a GPU, or counted with fake tensors where there is none.

Counting is exact for tensors, of any size, in a second. Of what kernels allocate inside themselves only
attention's backward pass is added, by what FlashAttention-2's source says.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.live_bytes import LiveBytes
from longvila.parallel import HostMemory
from longvila.parallel.memory.host import Waiting

Built = TypeVar("Built")
FLOAT32_BYTES = 4


class Peak(NamedTuple):
    """What was in use."""

    device_bytes: int  # at the fullest moment
    before_bytes: int  # of these, what was there before the work began: weights
    host_bytes: int  # what was put away on the host, all in all
    seconds: float | None  # None where nothing was computed


class Meter(ABC):
    """Runs something and tells the peak of its memory."""

    device: torch.device
    measures: str

    @abstractmethod
    def run(self, prepare: Callable[[], Built], work: Callable[[Built, HostMemory], None]) -> Peak | None:
        """Run ``work`` on what ``prepare`` built; None when the device was too small."""


class CountedHost(HostMemory):
    """Says how much was put away."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def put(self, tensor: Tensor) -> Waiting:
        """See HostMemory."""
        self.size_bytes += tensor.nbytes
        return super().put(tensor)


class CudaMeter(Meter):
    """The CUDA allocator's own account."""

    measures = "measured on the GPU"

    def __init__(self) -> None:
        self.device = torch.device("cuda")

    def run(self, prepare: Callable[[], Built], work: Callable[[Built, HostMemory], None]) -> Peak | None:
        """See Meter."""
        host = CountedHost()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            built = prepare()
            before = torch.cuda.memory_allocated()
            torch.cuda.synchronize()
            started = time.perf_counter()
            work(built, host)
            torch.cuda.synchronize()
        except torch.OutOfMemoryError:
            return None
        finally:
            torch.cuda.empty_cache()
        seconds = time.perf_counter() - started
        return Peak(torch.cuda.max_memory_allocated(), before, host.size_bytes, seconds)


class _FakeHost(HostMemory):
    """Stands for the host: what is put here is not counted as the device's."""

    def __init__(self, meter: LiveBytes) -> None:
        self._meter = meter
        self.size_bytes = 0

    def put(self, tensor: Tensor) -> Waiting:
        self.size_bytes += tensor.nbytes
        with self._meter.elsewhere():
            return Waiting(torch.empty_like(tensor), tensor.device)

    def get(self, waiting: Waiting) -> Tensor:
        return torch.empty_like(waiting.copy)


class FakeMeter(Meter):
    """Counts the tensors of a run in which only shapes are computed."""

    measures = (
        "counted with fake tensors: exact for tensors; of what kernels allocate inside themselves, with that "
        "of FlashAttention-2's backward pass"
    )

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def run(self, prepare: Callable[[], Built], work: Callable[[Built, HostMemory], None]) -> Peak | None:
        """See Meter."""
        meter = LiveBytes(inside=flash_workspace)
        host = _FakeHost(meter)
        with FakeTensorMode(allow_non_fake_inputs=True), meter:
            built = prepare()
            before = meter.now
            work(built, host)
        return Peak(meter.peak, before, host.size_bytes, seconds=None)


def flash_workspace(operation: object, args: Sequence[Any]) -> int:
    """Return the bytes that FlashAttention-2 would allocate inside itself in this operation's place.

    Its backward pass adds dq up in float32, and makes dk and dv for every query head before it sums them
    over the heads of a KV head (csrc/flash_attn/flash_api.cpp, mha_bwd).
    """
    if operation is not torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default:
        return 0
    _, q_BHtD, k_BhsD = args[:3]
    expanded = k_BhsD[:, :1].nbytes * q_BHtD.shape[1] if k_BhsD.shape[1] != q_BHtD.shape[1] else 0
    return q_BHtD.numel() * FLOAT32_BYTES + 2 * expanded


def best_meter() -> Meter:
    """Return the GPU's where there is one."""
    return CudaMeter() if torch.cuda.is_available() else FakeMeter()
