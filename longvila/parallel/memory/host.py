"""The host's memory as a place where an accelerator's tensors wait.

Copies run on the stream that computes, through pinned memory: they are in order with what made a tensor and
with what reads it back, and the host does not wait for them. At the lengths that need this, attention takes
so much longer than the copies that hiding these behind it would gain next to nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class Waiting(NamedTuple):
    """A tensor that waits, and the device that it came from."""

    copy: Tensor
    device: torch.device


class HostMemory:
    """Puts tensors away and gets them back. Tensors that are on the host already stay as they are."""

    def put(self, tensor: Tensor) -> Waiting:
        """Return a copy that waits on the host."""
        if tensor.device.type == "cpu":
            return Waiting(tensor, tensor.device)
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return Waiting(pinned.copy_(tensor, non_blocking=True), tensor.device)

    def get(self, waiting: Waiting) -> Tensor:
        """Return the tensor on its device again."""
        return waiting.copy.to(waiting.device, non_blocking=True)

    def takes_saved(self) -> AbstractContextManager[None]:
        """Return a context in which all that autograd saves waits on the host."""
        return saved_tensors_hooks(self.put, self.get)
