"""Puts the heads that come back from several ranks and parts side by side.

Pieces are written to their place as they come, so that no more than the newest is held twice.
"""

# t tokens held by this rank, h heads of a piece, D head size.

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from longvila.parallel.heads import HeadPart, HeadRange
from longvila.parallel.merge import sum_dtype


class Columns:
    """Heads that come in pieces, put side by side. A piece that is all there is stays as it is."""

    def __init__(self, num_heads: int) -> None:
        self._num_heads = num_heads
        self._whole: Tensor | None = None

    def put(self, ranges: Sequence[HeadRange], pieces_thD: Sequence[Tensor]) -> None:
        """Take one piece per rank, each at its heads."""
        for heads, piece in zip(ranges, pieces_thD, strict=True):
            if heads.size == self._num_heads:
                self._whole = piece
                continue
            if self._whole is None:
                self._whole = piece.new_empty(len(piece), self._num_heads, piece.shape[2])
            self._whole[:, heads.start : heads.stop] = piece

    def whole(self) -> Tensor:
        """Return all heads."""
        assert self._whole is not None, "every head comes in some piece"
        return self._whole


class SumColumns:
    """KV heads' gradients from several ranks, added up in float32 (float64 for float64) where they meet."""

    def __init__(self, num_heads: int) -> None:
        self._num_heads = num_heads
        self._sum: Tensor | None = None

    def put(self, ranges: Sequence[HeadRange], pieces_thD: Sequence[Tensor]) -> None:
        """Add one piece per rank, each at its heads."""
        for heads, piece in zip(ranges, pieces_thD, strict=True):
            if self._sum is None:
                shape = (len(piece), self._num_heads, piece.shape[2])
                self._sum = torch.zeros(shape, dtype=sum_dtype(piece.dtype), device=piece.device)
                self._dtype = piece.dtype
            self._sum[:, heads.start : heads.stop] += piece

    def whole(self) -> Tensor:
        """Return the sums in the pieces' dtype."""
        assert self._sum is not None, "every head comes in some piece"
        return self._sum.to(self._dtype)


class HeadGradients:
    """Puts the gradients of q, k and v together from what every rank and part found."""

    def __init__(self, num_heads: int, parts: Sequence[HeadPart]) -> None:
        ends = Counter(head for part in parts for heads in part.ended for head in range(*heads))
        kind = SumColumns if max(ends.values()) > 1 else Columns
        self._dq = Columns(num_heads)
        self._dk, self._dv = kind(len(ends)), kind(len(ends))

    def put(self, heads: HeadPart, pieces_thD: Sequence[Tensor]) -> None:
        """Take dq, dk and dv of one part, rank after rank."""
        self._dq.put(heads.q, pieces_thD[0::3])
        self._dk.put(heads.ended, pieces_thD[1::3])
        self._dv.put(heads.ended, pieces_thD[2::3])

    def whole(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of all heads, dq, dk, dv."""
        return self._dq.whole(), self._dk.whole(), self._dv.whole()
