"""A ring place's regions as kernel calls on its own buffers.

Regions speak of positions in the packed row; calls speak of rows of the buffers that a ring place holds:
its own queries and keys, and at each step the keys that one other place sent it.

A packed row may hold hundreds of short documents. Their causal squares are stacked into a few calls: lengths
are rounded up to a few sizes, and the missing rows repeat the document's last token. That changes nothing: in
a causal square only the repeated queries, whose results are dropped, see the repeated keys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longvila.parallel.kernels import Mask
from longvila.parallel.layout import Layout
from longvila.parallel.regions import Kind, Region, Span

STACKED_UP_TO = 1024
"""Longer causal squares fill a kernel by themselves."""


class Call(NamedTuple):
    """One kernel call on rows of the own queries and rows of a key buffer."""

    q: slice
    k: slice
    mask: Mask


class Stack(NamedTuple):
    """Short causal squares in a few calls.

    Slot i of the stacked buffer takes row ``rows[i]``. ``calls`` are (first slot, squares, size of each).
    The slots ``kept_slots`` hold true tokens, those of the rows ``kept_rows``; the rest is repetition.
    """

    rows: Tensor
    calls: tuple[tuple[int, int, int], ...]
    kept_slots: Tensor
    kept_rows: Tensor
    repeated_slots: Tensor

    def to(self, device: torch.device) -> Stack:
        """Return the same with its tables on ``device``."""
        tables = (self.kept_slots, self.kept_rows, self.repeated_slots)
        return Stack(self.rows.to(device), self.calls, *(table.to(device) for table in tables))


class Step(NamedTuple):
    """One exchange of keys and the calls on what arrived.

    This place sends the rows ``sends`` of its keys to ring place ``consumer``, and receives ``received`` rows
    from ``owner``.
    """

    owner: int
    consumer: int
    sends: tuple[slice, ...]
    received: int
    calls: tuple[Call, ...]

    @property
    def sent(self) -> int:
        """How many rows are sent."""
        return sum(rows.stop - rows.start for rows in self.sends)


@dataclass(frozen=True, eq=False)
class Schedule:
    """All that one ring place does in one attention layer.

    ``squares`` and ``stack`` meet every true row of the buffer once as a query, so they may assign their
    results; ``own`` (further regions among own keys) and ``steps`` merge theirs.
    """

    length: int
    squares: tuple[Call, ...]
    stack: Stack | None
    own: tuple[Call, ...]
    steps: tuple[Step, ...]

    @property
    def is_one_square(self) -> bool:
        """Whether the whole buffer is one causal square, and nothing needs to be merged."""
        return self.squares[:1] == (_square(0, self.length),) and not self.merges

    @property
    def merges(self) -> bool:
        """Whether any row gets partial results from more than one call."""
        return bool(self.own) or any(step.calls for step in self.steps)


@lru_cache(maxsize=32)
def make_schedule(layout: Layout, ring_rank: int, device: torch.device) -> Schedule:
    """Turn a layout's regions into the kernel calls of one ring place, tables on ``device``."""
    first, *later = layout.regions(ring_rank)
    own_keys = [_rows(layout, run) for run in layout.runs(ring_rank)]
    merged = [region for region in first if region.kind is not Kind.CAUSAL]
    squares, own = _join_squares(
        [(layout.to_ring(region.q.start), region.q.size) for region in first if region.kind is Kind.CAUSAL],
        list(_calls(layout, merged, keys=layout.runs(ring_rank), places=[rows.start for rows in own_keys])),
    )
    alone, stacked = _part_squares(squares)
    return Schedule(
        length=layout.ring_length,
        squares=tuple(_square(start, size) for start, size in alone),
        stack=_make_stack(stacked).to(device) if stacked else None,
        own=tuple(own),
        steps=tuple(_make_step(layout, ring_rank, t, regions) for t, regions in enumerate(later, start=1)),
    )


def _make_step(layout: Layout, ring_rank: int, t: int, regions: Sequence[Region]) -> Step:
    owner, consumer = (ring_rank + t) % layout.ring_degree, (ring_rank - t) % layout.ring_degree
    arriving = layout.sends(owner, ring_rank)
    sizes = [span.size for span in arriving]
    return Step(
        owner=owner,
        consumer=consumer,
        sends=tuple(_rows(layout, span) for span in layout.sends(ring_rank, consumer)),
        received=sum(sizes),
        calls=_fuse(_calls(layout, regions, keys=arriving, places=np.cumsum([0, *sizes]).tolist())),
    )


def _calls(
    layout: Layout, regions: Iterable[Region], *, keys: Sequence[Span], places: Sequence[int]
) -> Iterable[Call]:
    """Place regions on a key buffer in which the spans ``keys`` begin at ``places``."""
    for region in regions:
        held = next(i for i, span in enumerate(keys) if span.start <= region.k.start < span.stop)
        start = places[held] + region.k.start - keys[held].start
        yield Call(
            q=_rows(layout, region.q),
            k=slice(start, start + region.k.size),
            mask=Mask(region.kind, region.edge),
        )


def _rows(layout: Layout, span: Span) -> slice:
    """Return the rows in the buffer of the ring place that holds ``span``."""
    start = layout.to_ring(span.start)
    return slice(start, start + span.size)


def _square(start: int, size: int) -> Call:
    return Call(slice(start, start + size), slice(start, start + size), Mask(Kind.CAUSAL))


def _fuse(calls: Iterable[Call]) -> tuple[Call, ...]:
    """Join rectangles that lie side by side in the buffers: large calls are faster, and merges are fewer."""
    fused: list[Call] = []
    for call in calls:
        last = fused[-1] if fused else None
        if last is not None and last.mask.kind is call.mask.kind is Kind.DENSE:
            if last.k == call.k and last.q.stop == call.q.start:
                fused[-1] = last._replace(q=slice(last.q.start, call.q.stop))
                continue
            if last.q == call.q and last.k.stop == call.k.start:
                fused[-1] = last._replace(k=slice(last.k.start, call.k.stop))
                continue
        fused.append(call)
    return tuple(fused)


Squares = list[tuple[int, int]]


def _join_squares(squares: Squares, calls: list[Call]) -> tuple[Squares, list[Call]]:
    """Join two causal squares and the rectangle between them, side by side in the buffer, into one square.

    So the early and the late chunk of one document are a single call.
    """
    sizes = dict(squares)
    left = []
    for call in calls:
        early, late = call.k, call.q
        whole = (
            call.mask.kind is Kind.DENSE
            and early.stop == late.start
            and sizes.get(early.start) == early.stop - early.start
            and sizes.get(late.start) == late.stop - late.start
        )
        if whole:
            sizes[early.start] += sizes.pop(late.start)
        else:
            left.append(call)
    return sorted(sizes.items()), left


def _part_squares(squares: Squares) -> tuple[Squares, dict[int, Squares]]:
    """Part causal squares (first row, size) into those called alone and those stacked, by rounded size."""
    stacked: dict[int, Squares] = defaultdict(list)
    alone: Squares = []
    for start, size in squares:
        if size > STACKED_UP_TO or len(squares) == 1:
            alone.append((start, size))
        else:
            stacked[_rounded(size)].append((start, size))
    return alone, stacked


def _rounded(size: int) -> int:
    """Round a length up to a multiple of 16, from 128 on to one of eight sizes per doubling."""
    step = max(16, 1 << max((size - 1).bit_length() - 4, 0))
    return -(-size // step) * step


def _make_stack(by_size: dict[int, Squares]) -> Stack:
    """Lay out the stacked buffer: size after size, square after square."""
    tables: list[np.ndarray] = []
    kept: list[np.ndarray] = []
    calls: list[tuple[int, int, int]] = []
    first = 0
    for size, squares in sorted(by_size.items()):
        starts = np.array([start for start, _ in squares])[:, None]
        sizes = np.array([size for _, size in squares])[:, None]
        slots = np.arange(size)
        tables.append((starts + np.minimum(slots, sizes - 1)).reshape(-1))
        kept.append((slots < sizes).reshape(-1))
        calls.append((first, len(squares), size))
        first += len(squares) * size
    rows, is_kept = np.concatenate(tables), np.concatenate(kept)
    return Stack(
        rows=torch.from_numpy(rows),
        calls=tuple(calls),
        kept_slots=torch.from_numpy(np.flatnonzero(is_kept)),
        kept_rows=torch.from_numpy(rows[is_kept]),
        repeated_slots=torch.from_numpy(np.flatnonzero(~is_kept)),
    )
