"""One forward pass of one packed row, as a module of its own.

Everything that touches a weight, the loss included, runs inside this module's ``forward``, so that the
hooks which gather sharded weights fire for all of it.
"""

# t tokens held here, f frames held here, n visual tokens seated here, D LLM width.

from __future__ import annotations

import torch
from torch import Tensor, nn

from longvila.data import PackedBatch
from longvila.model import LongVila
from longvila.model.module import Attend, Exchange
from longvila.model.preprocess import normalise
from longvila.parallel import IGNORE_INDEX, Groups, chunked_cross_entropy, make_attend, make_exchange

LOSS_CHUNK = 2048  # scored tokens whose logits are in memory at once


class MicroStep(nn.Module):
    """The model with its loss: a packed row in, the summed loss of this rank's scored tokens out."""

    def __init__(self, model: LongVila, *, always_encode: bool) -> None:
        super().__init__()
        self.model = model
        self._always_encode = always_encode

    def forward(
        self,
        input_ids_t: Tensor,
        labels_t: Tensor,
        position_ids_t: Tensor,
        frames_fHW3: Tensor,
        local_seats_n: Tensor,
        *,
        attend: Attend,
        exchange: Exchange,
        num_chunks: int | None = None,
    ) -> Tensor:
        """Return the sum of the loss over this rank's scored tokens, a scalar in float32.

        ``labels_t`` are shifted already. ``frames_fHW3`` are bytes. ``num_chunks`` is the same on all ranks
        where weights are sharded: each chunk gathers ``lm_head``.
        """
        frames_f3HW = normalise(frames_fHW3) if len(frames_fHW3) else None
        hidden_1tD = self.model(
            input_ids_t[None],
            position_ids_t[None],
            frames_f3HW,
            local_seats_n,
            attend=attend,
            exchange=exchange,
            always_encode=self._always_encode,
        )
        loss = chunked_cross_entropy(
            hidden_1tD[0], labels_t, self.model.lm_head, chunk=LOSS_CHUNK, num_chunks=num_chunks
        )
        return loss.loss_sum


def run(
    module: nn.Module,
    batch: PackedBatch,
    groups: Groups,
    *,
    head_groups: int,
    num_chunks: int | None,
    device: torch.device,
) -> Tensor:
    """Run one packed row through the (possibly sharded) module; returns this rank's summed loss."""
    on_device = (
        tensor.to(device, non_blocking=True)
        for tensor in (
            batch.input_ids_t,
            batch.labels_t,
            batch.position_ids_t,
            batch.frames_fHW3,
            batch.local_seats_n,
        )
    )
    return module(
        *on_device,
        attend=make_attend(batch.plan, groups, head_groups=head_groups),
        exchange=make_exchange(batch.plan, groups),
        num_chunks=num_chunks,
    )


def chunks_needed(batch: PackedBatch) -> int:
    """How many chunks this rank's scored tokens fill."""
    return max(1, -(-int((batch.labels_t != IGNORE_INDEX).sum()) // LOSS_CHUNK))
