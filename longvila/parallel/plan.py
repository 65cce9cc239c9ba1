"""One micro-batch divided: its frames over ranks, its tokens over ranks, and what goes from whom to whom.

A plan is made once, on the host, from integers that are known before any pixel is read. Every later step
obeys it: a rank decodes and encodes its frames only, the exchange sends each visual token to its seat's
owner, and attention follows the layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from longvila.errors import InputError
from longvila.parallel.layout import Layout


@dataclass(frozen=True, eq=False)
class Route:
    """One rank's part in the exchange of visual tokens.

    Its encoded rows (frames_of × tokens_per_frame, flat) are sent in the order ``send_rows``,
    ``send_counts[i]`` of them to sp rank i. Of what arrives, ``receive_counts[i]`` rows from sp rank i,
    row ``place[j]`` takes the j-th of the rank's local seats.
    """

    send_rows: np.ndarray
    send_counts: tuple[int, ...]
    receive_counts: tuple[int, ...]
    place: np.ndarray


@dataclass(frozen=True, eq=False)
class Plan:
    """The layout of a packed row and the division of its frames.

    ``frame_seats`` holds the position of each frame's first visual token, ``bounds`` where each rank's frames
    begin (int64 [sp_size + 1]): rank i encodes the frames ``[bounds[i], bounds[i + 1])``.
    """

    layout: Layout
    frame_seats: np.ndarray
    tokens_per_frame: int
    bounds: np.ndarray

    @property
    def num_frames(self) -> int:
        """Frames in the whole packed row."""
        return len(self.frame_seats)

    def frames_of(self, sp_rank: int) -> np.ndarray:
        """Return the frames (numbered along the packed row) that a rank decodes and encodes, int64."""
        return np.arange(self.bounds[sp_rank], self.bounds[sp_rank + 1], dtype=np.int64)

    def local_seats(self, sp_rank: int) -> np.ndarray:
        """Return the local positions of the visual tokens that a rank owns, ascending, int64."""
        owners, places = self._seat_owners
        return np.sort(places[owners == sp_rank])

    def route(self, sp_rank: int) -> Route:
        """Return what a rank sends and receives in the exchange of visual tokens."""
        owners, places = self._seat_owners
        encoders = np.repeat(np.arange(self.layout.sp_size), np.diff(self.bounds) * self.tokens_per_frame)
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
        seats = self.frame_seats[:, None] + np.arange(self.tokens_per_frame)
        return self.layout.owners(seats.reshape(-1))


def make_plan(
    lengths: Sequence[int],
    frame_seats: Sequence[int] | np.ndarray = (),
    *,
    tokens_per_frame: int = 1,
    patches_per_frame: int | Sequence[int] = 1,
    ulysses_degree: int = 1,
    ring_degree: int = 1,
    window: int | None = None,
) -> Plan:
    """Divide a packed row of documents of ``lengths`` tokens and its frames.

    ``frame_seats`` are the positions in the row of each frame's first visual token, ascending.
    ``patches_per_frame`` weighs the frames where their sizes differ. Raises InputError for seats that leave
    their document or overlap.
    """
    layout = Layout(tuple(lengths), ulysses_degree, ring_degree, window)
    seats = np.asarray(frame_seats, dtype=np.int64).reshape(-1)
    _check_seats(seats, tokens_per_frame, layout.cu_seqlens)
    patches = np.broadcast_to(np.asarray(patches_per_frame, dtype=np.int64), seats.shape)
    return Plan(
        layout=layout,
        frame_seats=seats,
        tokens_per_frame=tokens_per_frame,
        bounds=divide_frames(patches, layout.sp_size),
    )


def divide_frames(patches: np.ndarray, sp_size: int) -> np.ndarray:
    """Cut frames into contiguous shares of nearly equal patches; return where each begins, and the end.

    A frame goes to the share in which its middle falls. Shares of equal frames differ by at most one frame.
    """
    total = int(patches.sum())
    if total == 0:
        return np.zeros(sp_size + 1, dtype=np.int64)
    doubled_middles = 2 * np.cumsum(patches) - patches
    ranks = doubled_middles * sp_size // (2 * total)
    return np.searchsorted(ranks, np.arange(sp_size + 1), side="left").astype(np.int64)


def _check_seats(seats: np.ndarray, tokens_per_frame: int, cu_seqlens: np.ndarray) -> None:
    """Raise InputError unless each frame's tokens lie in one document, after those of the frame before."""
    if len(seats) == 0:
        return
    documents = np.searchsorted(cu_seqlens, seats, side="right")
    ends = cu_seqlens[np.minimum(documents, len(cu_seqlens) - 1)]
    outside = (seats < 0) | (seats + tokens_per_frame > ends)
    overlap = np.diff(seats, append=seats[-1] + tokens_per_frame) < tokens_per_frame
    for bad, problem in (
        (outside, "do not lie within one document"),
        (overlap, "overlap those of the next frame"),
    ):
        if bad.any():
            frame = int(np.argmax(bad))
            raise InputError(
                f"the {tokens_per_frame} seats of frame {frame} (from position {int(seats[frame])}) "
                f"{problem}; documents begin and end at {_shown(cu_seqlens)}. "
                "Give each frame its own tokens_per_frame seats."
            )


def _shown(borders: np.ndarray) -> str:
    return ", ".join(map(str, borders[:8].tolist())) + (", …" if len(borders) > 8 else "")


def _counts(ranks: np.ndarray, sp_size: int) -> tuple[int, ...]:
    return tuple(np.bincount(ranks, minlength=sp_size).tolist())
