"""The training loss of a row that is spread over ranks.

The contract: every rank sums the losses of its own scored tokens, times world_size / N, where N counts the
scored tokens of all micro-steps of an optimizer step over the whole world. An engine that averages gradients
over the world, as in plain data parallelism, then arrives at the gradient of the true mean over tokens.
"""

# t tokens held by this rank, s scored tokens of a chunk, V vocabulary, D hidden size.

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from longvila.errors import ConfigError
from longvila.parallel import layout

IGNORE_INDEX = layout.IGNORE_INDEX

Labels = TypeVar("Labels", Tensor, np.ndarray)


class LossOut(NamedTuple):
    """A loss that is not divided yet: sum both over ranks and micro-steps first."""

    loss_sum: Tensor  # over the tokens scored on this rank, float32 (float64 for float64 inputs)
    num_scored: Tensor  # int64


def shift_labels(labels_T: Labels, cu_seqlens: Sequence[int] | np.ndarray | Tensor) -> Labels:
    """Give every token of the whole row the label of its successor; documents' last tokens are not scored.

    Call it before the row is sharded: at a joint of two ranks the successor is elsewhere.
    """
    ends = np.asarray(cu_seqlens)
    if isinstance(labels_T, Tensor):
        return torch.from_numpy(layout.shift_labels(labels_T.cpu().numpy(), ends)).to(labels_T.device)
    return layout.shift_labels(labels_T, ends)


def chunked_cross_entropy(
    hidden_tD: Tensor,
    labels_t: Tensor,
    lm_head: nn.Module,
    *,
    chunk: int = 1024,
    num_chunks: int | None = None,
    scored: Tensor | None = None,
) -> LossOut:
    """Return the summed cross entropy of the scored tokens, whose logits are never kept.

    ``labels_t`` are already shifted. Logits are made for at most ``chunk`` scored tokens at a time, and again
    in the backward pass. They come from a call of the module ``lm_head``, so that hooks on it fire.
    ``num_chunks`` fixes the number of these calls, for engines in which a call is a collective (ZeRO-3): then
    give the same number, large enough for the fullest rank, on all ranks. ``scored`` are the places of the
    scored tokens, int64; a caller that knows them spares a GPU the wait until they are found.
    """
    if hidden_tD.dim() != 2 or labels_t.shape != hidden_tD.shape[:1] or chunk < 1:
        raise ConfigError(
            f"the loss got hidden states {tuple(hidden_tD.shape)}, labels {tuple(labels_t.shape)} and "
            f"chunk={chunk}. Give [t, D], [t] and at least 1: of a model's output, hidden[0]."
        )
    if scored is None:
        scored = scored_places(labels_t)
    needed = max(-(-len(scored) // chunk), 1)
    if num_chunks is not None and num_chunks < needed:
        raise ConfigError(
            f"num_chunks={num_chunks} chunks of {chunk} tokens do not hold the {len(scored)} scored tokens "
            f"of this rank. Give at least {needed}, the same on all ranks."
        )
    losses = [
        checkpoint(_summed_loss, *_chunk_of(hidden_tD, labels_t, rows), lm_head, use_reentrant=False)
        for rows in scored.tensor_split(num_chunks or needed)
    ]
    loss_sum = torch.stack(losses).sum()
    return LossOut(loss_sum=loss_sum, num_scored=torch.tensor(len(scored), device=hidden_tD.device))


def scored_places(labels_t: Tensor) -> Tensor:
    """Return which tokens are scored, int64."""
    return torch.nonzero(labels_t != IGNORE_INDEX).squeeze(1)


def for_data_parallel(loss_sum: Tensor, *, total_scored: int | Tensor, world_size: int) -> Tensor:
    """Scale a rank's summed loss so that an average of gradients over the world is the global token mean.

    ``total_scored`` counts the scored tokens of all ranks and all micro-steps of the optimizer step.
    """
    if isinstance(total_scored, Tensor):
        return loss_sum * world_size / total_scored.clamp(min=1)
    return loss_sum * (world_size / max(total_scored, 1))


def _chunk_of(hidden_tD: Tensor, labels_t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the hidden states and labels of some rows; of an empty chunk one row that is not scored."""
    if len(rows):
        return hidden_tD.index_select(0, rows), labels_t.index_select(0, rows)
    return hidden_tD[:1], torch.full_like(labels_t[:1], IGNORE_INDEX)


def _summed_loss(hidden_sD: Tensor, labels_s: Tensor, lm_head: nn.Module) -> Tensor:
    logits_sV = lm_head(hidden_sD)
    logits_sV = logits_sV.to(torch.promote_types(logits_sV.dtype, torch.float32))
    return F.cross_entropy(logits_sV, labels_s, ignore_index=IGNORE_INDEX, reduction="sum")
