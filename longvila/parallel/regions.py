"""The causal mask of a packed row, cut into pieces that an attention kernel can take whole.

Everything here is a pure function of integers: positions in the packed row, ``cu_seqlens`` (where documents
begin, and the end), and a sliding window. A query at p of a document that begins at s sees the keys
``[max(s, p - window + 1), p]``.

Inside one stretch of tokens every document is a square causal piece. Between two different stretches at most
one document spans both, so all that is left between them is one dense rectangle, or, where the far edge of a
sliding window cuts through it, a band.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Kind(Enum):
    """Which keys of a region a query of it sees."""

    CAUSAL = "causal"  # as many queries as keys, query i sees keys j <= i
    DENSE = "dense"  # all of them
    BAND = "band"  # query i sees keys j - i > edge


class Span(NamedTuple):
    """Positions ``[start, stop)``."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many positions."""
        return self.stop - self.start


class Region(NamedTuple):
    """Queries times keys, in positions of the packed row. No query of a region is without a key."""

    q: Span
    k: Span
    kind: Kind
    edge: int = 0


def own_regions(run: Span, cu_seqlens: np.ndarray, window: int | None) -> Iterator[Region]:
    """Cut what the tokens of one contiguous run see of each other.

    Each position is a query of exactly one causal region; bands and rectangles come on top.
    """
    for segment in segments(run, cu_seqlens):
        size = segment.size if window is None else min(window, segment.size)
        for start in range(segment.start, segment.stop, size):
            tile = Span(start, min(start + size, segment.stop))
            yield Region(tile, tile, Kind.CAUSAL)
            if start > segment.start:
                before = Span(start - size, start)
                yield from _trimmed(tile, before, window)


def cross_region(q_run: Span, k_run: Span, cu_seqlens: np.ndarray, window: int | None) -> Iterator[Region]:
    """Yield the one region, if any, in which the tokens of ``q_run`` see those of an earlier run."""
    if k_run.stop > q_run.start or q_run.start >= cu_seqlens[-1]:
        return
    document = int(np.searchsorted(cu_seqlens, q_run.start, side="right")) - 1
    start, stop = int(cu_seqlens[document]), int(cu_seqlens[document + 1])
    if start < k_run.stop:
        q = Span(q_run.start, min(q_run.stop, stop))
        yield from _trimmed(q, Span(max(k_run.start, start), k_run.stop), window)


def segments(run: Span, cu_seqlens: np.ndarray) -> list[Span]:
    """Cut a run at the borders of documents. Padding after the last document belongs to none."""
    first = int(np.searchsorted(cu_seqlens, run.start, side="right"))
    last = int(np.searchsorted(cu_seqlens, run.stop, side="left"))
    borders = [run.start, *cu_seqlens[first:last].tolist(), min(run.stop, int(cu_seqlens[-1]))]
    return [Span(start, stop) for start, stop in pairwise(borders) if start < stop]


def _trimmed(q: Span, k: Span, window: int | None) -> Iterator[Region]:
    """Yield the part of queries × earlier keys of one document that lies within the window."""
    if window is not None:
        q = Span(q.start, min(q.stop, k.stop + window - 1))
        k = Span(max(k.start, q.start - window + 1), k.stop)
    if q.size <= 0 or k.size <= 0:
        return
    if window is None or q.stop - window <= k.start:
        yield Region(q, k, Kind.DENSE)
    else:
        yield Region(q, k, Kind.BAND, edge=q.start - k.start - window)
