"""Attention, written out on one process, that everything is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def document_mask(lengths: Sequence[int], window: int | None = None) -> Tensor:
    """Return which keys each query of a packed row sees, bool [T, T]."""
    total = sum(lengths)
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths, dtype=torch.int64))
    query, key = torch.arange(total)[:, None], torch.arange(total)
    mask = (key <= query) & (documents[:, None] == documents)
    return mask if window is None else mask & (key > query - window)


def attention(
    q_HTD: Tensor, k_HTD: Tensor, v_HTD: Tensor, mask_TT: Tensor, *, scale: float, sinks: Tensor | None = None
) -> Tensor:
    """Return out_HTD with a full softmax; KV heads are repeated for their query heads."""
    share = len(q_HTD) // len(k_HTD)
    k_HTD, v_HTD = k_HTD.repeat_interleave(share, 0), v_HTD.repeat_interleave(share, 0)
    scores = (q_HTD @ k_HTD.transpose(1, 2) * scale).masked_fill(~mask_TT, float("-inf"))
    if sinks is not None:
        column = sinks[:, None, None].expand(-1, scores.shape[1], 1)
        return torch.cat([scores, column], dim=2).softmax(dim=2)[..., :-1] @ v_HTD
    return scores.softmax(dim=2) @ v_HTD
