"""Re-sharding by gathering all visual tokens on every rank, as VeOmni and Megatron do, with exact gradients.

The way back is a reduce-scatter. Both need shares of one size, so smaller ones are padded.
"""

# m tokens encoded here, x tokens of the largest share, n tokens seated here, D LLM width.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from benchmarks.counting import Traffic
from benchmarks.vision.all_reduce import take


@dataclass(frozen=True)
class AllGather:
    """One rank's part: which rows it takes of all shares, padded to the largest, one after another."""

    largest: int
    taken_n: Tensor
    traffic: Traffic

    def __call__(self, features_mD: Tensor) -> Tensor:
        """Return rows_nD. Collective, and so is its backward.

        Counts what rings send: each rank P - 1 shares forward, and as many backward.
        """
        missing = self.largest - len(features_mD)
        share_xD = F.pad(features_mD, (0, 0, 0, missing)) if missing else features_mD
        gathered: Any = _Gather.apply(share_xD, self.traffic)
        return take(gathered, self.taken_n)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share_xD: Tensor, traffic: Traffic) -> Tensor:
        ctx.traffic = traffic
        size = dist.get_world_size()
        gathered = share_xD.new_empty(size * len(share_xD), share_xD.shape[1])
        dist.all_gather(list(gathered.chunk(size)), share_xD)
        traffic.add((size - 1) * share_xD.nbytes, far=False)
        return gathered

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None]:
        size = dist.get_world_size()
        grad_xD = grad.new_empty(len(grad) // size, grad.shape[1])
        dist.reduce_scatter(grad_xD, list(grad.contiguous().chunk(size)))
        ctx.traffic.add((size - 1) * grad_xD.nbytes, far=False)
        return grad_xD, None
