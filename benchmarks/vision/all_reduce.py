"""Re-sharding as the published MM-SP does it: a sum of zero-filled buffers as long as the whole sequence.

Every rank writes the tokens that it has encoded into zeros [S, D], and the buffers are summed in place: now
every rank holds the whole sequence, and takes its own part. The sum is unknown to autograd, so a token's
gradient stays on the rank that owns its seat, and goes on only if that rank has encoded it.
"""

# S positions of the row, t positions held here, m tokens encoded here, n tokens seated here, D LLM width.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor

from benchmarks.counting import Traffic


@dataclass(frozen=True)
class AllReduce:
    """One rank's part: where its features go, and which positions, and which rows of these, it takes."""

    num_positions: int
    written_m: Tensor
    held_t: Tensor
    seats_n: Tensor
    traffic: Traffic

    def __call__(self, features_mD: Tensor) -> Tensor:
        """Return rows_nD. Collective.

        Counts what a ring all-reduce sends: each rank 2 · (P - 1) / P of the buffer.
        """
        buffer_SD: Any = features_mD.new_zeros(self.num_positions, features_mD.shape[1])
        buffer_SD.index_copy_(0, self.written_m, features_mD)
        dist.all_reduce(buffer_SD.detach())
        size = dist.get_world_size()
        self.traffic.add(2 * (size - 1) * buffer_SD.nbytes // size, far=False)
        held_tD = take(buffer_SD, self.held_t)
        return held_tD.index_select(0, self.seats_n)


def take(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return ascending rows: a view where there is no gap, which is also cheaper on the way back."""
    if len(rows) and int(rows[-1] - rows[0]) == len(rows) - 1:
        return tensor[int(rows[0]) : int(rows[-1]) + 1]
    return tensor.index_select(0, rows)
