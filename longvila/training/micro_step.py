"""One forward pass of one packed row, as a module of its own.

Everything that touches a weight, the loss included, runs inside this module's ``forward``, so that the
hooks which gather sharded weights fire for all of it.
"""

# t tokens held here, s scored ones of them, f frames held here, n visual tokens seated here, D LLM width.

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from longvila.data import PackedBatch
from longvila.model import LongVila
from longvila.model.module import Attend, Exchange
from longvila.model.preprocess import normalise
from longvila.model.vision import passes_of
from longvila.parallel import Groups, chunked_cross_entropy, make_attend, make_exchange
from longvila.parallel.loss import scored_places

LOSS_CHUNK = 2048  # scored tokens whose logits are in memory at once


class Calls(NamedTuple):
    """How often tower and projector, and ``lm_head``, are called in one forward pass.

    Where weights are sharded every call gathers them, so the numbers are the same on all ranks.
    """

    encoder: int = 0
    loss_chunks: int = 0  # at least; 0: as many as this rank's scored tokens take


class MicroStep(nn.Module):
    """The model with its loss: a packed row in, the summed loss of this rank's scored tokens out."""

    def __init__(self, model: LongVila, *, frames_at_once: int | None = None) -> None:
        super().__init__()
        self.model = model
        self._frames_at_once = frames_at_once

    def forward(
        self,
        input_ids_t: Tensor,
        labels_t: Tensor,
        position_ids_t: Tensor,
        frames_fHW3: Tensor,
        local_seats_n: Tensor,
        scored_s: Tensor | None = None,
        *,
        attend: Attend,
        exchange: Exchange,
        calls: Calls,
    ) -> Tensor:
        """Return the sum of the loss over this rank's scored tokens, a scalar in float32.

        ``labels_t`` are shifted already; ``scored_s``, the places of those that count, are looked for if they
        are not given. ``frames_fHW3`` are bytes.
        """
        frames_f3HW = normalise(frames_fHW3) if len(frames_fHW3) else None
        hidden_1tD = self.model(
            input_ids_t[None],
            position_ids_t[None],
            frames_f3HW,
            local_seats_n,
            attend=attend,
            exchange=exchange,
            encoder_calls=calls.encoder,
            frames_at_once=self._frames_at_once,
        )
        loss = chunked_cross_entropy(
            hidden_1tD[0],
            labels_t,
            self.model.lm_head,
            chunk=LOSS_CHUNK,
            num_chunks=calls.loss_chunks or None,
            scored=scored_s,
        )
        return loss.loss_sum


def run(
    module: nn.Module,
    batch: PackedBatch,
    groups: Groups,
    *,
    head_groups: int = 0,
    keep_keys: bool = False,
    kernel: str = "auto",
    calls: Calls,
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
            scored_places(batch.labels_t),
        )
    )
    return module(
        *on_device,
        attend=make_attend(batch.plan, groups, head_groups=head_groups, keep_keys=keep_keys, kernel=kernel),
        exchange=make_exchange(batch.plan, groups),
        calls=calls,
    )


def calls_needed(batch: PackedBatch, *, frames_at_once: int | None) -> Calls:
    """Return how many calls this rank's share of a packed row takes."""
    num_scored = len(scored_places(batch.labels_t))
    passes = passes_of([frame.shape for frame in batch.frames_fHW3], frames_at_once)
    return Calls(encoder=max(1, len(passes)), loss_chunks=max(1, -(-num_scored // LOSS_CHUNK)))
