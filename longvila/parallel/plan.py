"""One micro-batch divided: its frames over ranks, its tokens over ranks, and what goes from whom to whom.

A plan is made once, on the host, from integers that are known before any pixel is read. Every later step
obeys it: a rank decodes and encodes its frames only, the exchange sends each visual token to its seat's
owner, and attention follows the layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from longvila.errors import InputError
from longvila.parallel.layout import Layout, check_sp_rank, whole_numbers


@dataclass(frozen=True, eq=False)
class Route:
    """One rank's part in the exchange of visual tokens.

    Its encoded rows (the visual tokens of its frames, one after another) are sent in the order ``send_rows``,
    ``send_counts[i]`` of them to sp rank i. Of what arrives, ``receive_counts[i]`` rows from sp rank i,
    row ``place[j]`` takes the j-th of the rank's local seats.
    """

    send_rows: np.ndarray
    send_counts: tuple[int, ...]
    receive_counts: tuple[int, ...]
    place: np.ndarray


@dataclass(frozen=True, eq=False)
class Plan:
    """The layout of a packed row and the division of its frames (and images, which are frames of any size).

    ``frame_seats`` holds the position of each frame's first visual token, ``frame_tokens`` how many it has,
    ``bounds`` where each rank's frames begin (int64 [sp_size + 1]): rank i encodes the frames
    ``[bounds[i], bounds[i + 1])``.
    """

    layout: Layout
    frame_seats: np.ndarray
    frame_tokens: np.ndarray
    bounds: np.ndarray

    @property
    def num_frames(self) -> int:
        """Frames in the whole packed row."""
        return len(self.frame_seats)

    def frames_of(self, sp_rank: int) -> np.ndarray:
        """Return the frames (numbered along the packed row) that a rank decodes and encodes, int64."""
        check_sp_rank(sp_rank, self.layout.sp_size)
        return np.arange(self.bounds[sp_rank], self.bounds[sp_rank + 1], dtype=np.int64)

    def num_rows(self, sp_rank: int) -> int:
        """Return how many visual tokens a rank's own frames give."""
        check_sp_rank(sp_rank, self.layout.sp_size)
        return int(self.frame_tokens[self.bounds[sp_rank] : self.bounds[sp_rank + 1]].sum())

    def local_seats(self, sp_rank: int) -> np.ndarray:
        """Return the local positions of the visual tokens that a rank owns, ascending, int64."""
        check_sp_rank(sp_rank, self.layout.sp_size)
        owners, places = self._seat_owners
        return np.sort(places[owners == sp_rank])

    def route(self, sp_rank: int) -> Route:
        """Return what a rank sends and receives in the exchange of visual tokens."""
        check_sp_rank(sp_rank, self.layout.sp_size)
        owners, places = self._seat_owners
        ranks = np.repeat(np.arange(self.layout.sp_size), np.diff(self.bounds))
        encoders = np.repeat(ranks, self.frame_tokens)
        mine = owners[encoders == sp_rank]
        seated = owners == sp_rank
        arrival = np.lexsort((places[seated], encoders[seated]))
        return Route(
            send_rows=np.lexsort((places[encoders == sp_rank], mine)),
            send_counts=_counts(mine, self.layout.sp_size),
            receive_counts=_counts(encoders[seated], self.layout.sp_size),
            place=np.argsort(places[seated][arrival], kind="stable"),
        )

    @cached_property
    def _seat_owners(self) -> tuple[np.ndarray, np.ndarray]:
        """The owner and the local place of every visual token, frame after frame."""
        ends = np.cumsum(self.frame_tokens)
        inside = np.arange(self.frame_tokens.sum()) - np.repeat(ends - self.frame_tokens, self.frame_tokens)
        return self.layout.owners(np.repeat(self.frame_seats, self.frame_tokens) + inside)


def make_plan(
    lengths: Sequence[int],
    frame_seats: Sequence[int] | np.ndarray = (),
    *,
    tokens_per_frame: int | Sequence[int] = 1,
    patches_per_frame: int | Sequence[int] = 1,
    ulysses_degree: int = 1,
    ring_degree: int = 1,
    window: int | None = None,
) -> Plan:
    """Divide a packed row of documents of ``lengths`` tokens and its frames.

    ``frame_seats`` are the positions in the row of each frame's first visual token, ascending. Where sizes
    differ, ``tokens_per_frame`` says how many each has and ``patches_per_frame`` what each costs to encode.
    Raises InputError for seats that leave their document or overlap, and for counts that do not fit.
    """
    layout = Layout(whole_numbers("lengths", lengths), ulysses_degree, ring_degree, window)
    seats = _integers("frame_seats", frame_seats)
    tokens = _per_frame("tokens_per_frame", tokens_per_frame, len(seats))
    patches = _per_frame("patches_per_frame", patches_per_frame, len(seats))
    _check_seats(seats, tokens, layout.cu_seqlens)
    return Plan(layout, seats, tokens, bounds=divide_frames(patches, layout.sp_size))


def divide_frames(patches: np.ndarray, sp_size: int) -> np.ndarray:
    """Cut frames into contiguous shares of nearly equal patches; return where each begins, and the end.

    No other cut has a smaller largest share. Shares of equal frames differ by at most one frame.
    """
    if len(patches) == 0 or (patches == patches[0]).all():
        return (np.arange(sp_size + 1, dtype=np.int64) * len(patches) + sp_size // 2) // sp_size
    ends = np.cumsum(patches)
    most = _smallest_capacity(ends, sp_size)
    reach = np.searchsorted(ends, np.concatenate([[0], ends]) + most, side="right")  # of a full share from i
    needed = np.zeros(len(patches) + 1, dtype=np.int64)  # shares for the frames from i on
    for frame in reversed(range(len(patches))):
        needed[frame] = needed[reach[frame]] + 1
    bounds = [0]
    for left in range(sp_size - 1, 0, -1):
        start = bounds[-1]
        done = int(ends[start - 1]) if start else 0
        target = done + (int(ends[-1]) - done) / (left + 1)
        stop = int(np.searchsorted(ends - patches / 2, target))
        first = int(np.searchsorted(-needed, -left))  # before it, the rest would not fit
        bounds.append(min(max(stop, first, start), int(reach[start]) if start < len(patches) else start))
    return np.array([*bounds, len(patches)], dtype=np.int64)


def _smallest_capacity(ends: np.ndarray, sp_size: int) -> int:
    """Return the fewest patches that a share must hold so that ``sp_size`` shares hold all frames."""
    low, high = -(-int(ends[-1]) // sp_size), int(ends[-1])
    while low < high:
        middle = (low + high) // 2
        if _shares(ends, middle, at_most=sp_size) <= sp_size:
            high = middle
        else:
            low = middle + 1
    return low


def _shares(ends: np.ndarray, capacity: int, *, at_most: int) -> int:
    """Count the shares of that capacity that hold all frames; one more than ``at_most`` if these do not."""
    stop = count = 0
    while stop < len(ends) and count <= at_most:
        done = int(ends[stop - 1]) if stop else 0
        reached = int(np.searchsorted(ends, done + capacity, side="right"))
        if reached == stop:
            return at_most + 1
        stop, count = reached, count + 1
    return count


def _per_frame(name: str, given: int | Sequence[int], num_frames: int) -> np.ndarray:
    """Return one count per frame, int64. Raises InputError for another number of counts, and for one < 1."""
    counts = _integers(name, given)
    if counts.ndim and len(counts) != num_frames:
        raise InputError(
            f"{name} has {len(counts)} entries for {num_frames} frames. Give one for each, or one for all."
        )
    if counts.size and counts.min() < 1:
        raise InputError(f"{name}={given}: a frame has at least 1. Leave empty frames out.")
    return np.ascontiguousarray(np.broadcast_to(counts, (num_frames,)))


def _integers(name: str, given: Any) -> np.ndarray:
    """Return whole numbers as int64, of at most one axis. Raises InputError for anything else."""
    values = np.asarray(given)
    if values.size == 0:
        return np.zeros(0, dtype=np.int64)
    if values.dtype.kind not in "iu" or values.ndim > 1:
        raise InputError(f"{name}={given} must be whole numbers in one list.")
    return values.astype(np.int64)


def _check_seats(seats: np.ndarray, tokens: np.ndarray, cu_seqlens: np.ndarray) -> None:
    """Raise InputError unless each frame's tokens lie in one document, after those of the frame before."""
    if len(seats) == 0:
        return
    documents = np.searchsorted(cu_seqlens, seats, side="right")
    ends = cu_seqlens[np.minimum(documents, len(cu_seqlens) - 1)]
    outside = (seats < 0) | (seats + tokens > ends)
    overlap = np.diff(seats, append=seats[-1] + tokens[-1]) < tokens
    for bad, problem in (
        (outside, "do not lie within one document"),
        (overlap, "overlap those of the next frame"),
    ):
        if bad.any():
            frame = int(np.argmax(bad))
            raise InputError(
                f"the {int(tokens[frame])} seats of frame {frame} (from position {int(seats[frame])}) "
                f"{problem}; documents begin and end at {_shown(cu_seqlens)}. "
                "Give each frame its own tokens_per_frame seats."
            )


def _shown(borders: np.ndarray) -> str:
    return ", ".join(map(str, borders[:8].tolist())) + (", …" if len(borders) > 8 else "")


def _counts(ranks: np.ndarray, sp_size: int) -> tuple[int, ...]:
    return tuple(np.bincount(ranks, minlength=sp_size).tolist())
