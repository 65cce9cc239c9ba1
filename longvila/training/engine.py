"""What the loop asks of an engine: gradients summed over micro-steps and processes, one update, save, load.

An engine sees plain data parallelism over the whole world. The loop hands it ``loss_sum × world_size /
scored tokens of the whole optimizer step``; the engine adds what the micro-steps give, takes the mean over
the world, and so arrives at the gradient of the true mean over tokens (design, section 4). An engine never
divides by the number of micro-steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn


class Engine(Protocol):
    """One model under training."""

    @property
    def module(self) -> nn.Module:
        """What is called to compute a loss; hooks that gather sharded weights are in place."""
        ...

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of one micro-step; ``last`` marks the last one of the optimizer step."""
        ...

    def step(self, learning_rates: Sequence[float]) -> float:
        """Clip, update, clear the gradients. Returns the global gradient norm before clipping.

        ``learning_rates``: one per parameter group.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write weights and optimizer state into ``folder`` (collective)."""
        ...

    def load(self, folder: Path) -> None:
        """Read what ``save`` wrote, on the same number of processes (collective)."""
        ...

    def full_state(self) -> dict[str, Tensor]:
        """All parameters of the module, whole and on the CPU, on rank 0; empty elsewhere (collective)."""
        ...
