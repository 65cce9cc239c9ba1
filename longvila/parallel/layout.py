"""Where every token of a packed row lives, who computes what, and which keys go to whom.

A packed row is a sequence of documents. It is padded once, at its end, and cut into 2 · ring_degree chunks.
Ring place r holds the chunks r and 2 · ring_degree - 1 - r (zigzag), because in causal attention late queries
cost more than early ones: an early and a late chunk together cost the same everywhere. Of these two chunks,
joined, the rank (r, u) owns the u-th of ``ulysses_degree`` equal slices, so that after the Ulysses all-to-all
every rank of ring place r holds both chunks in order.

This module is host-only integer work: it needs lengths, and neither pixels nor processes.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from longvila.errors import ConfigError, InputError
from longvila.parallel.regions import Region, Span, cross_region, own_regions

IGNORE_INDEX = -100
"""The label of a token that is not scored."""


@dataclass(frozen=True)
class Layout:
    """The division of one packed row.

    ``lengths`` are the documents' lengths in tokens. ``window`` limits how many of the latest keys (itself
    included) a query sees; none: all of its document.
    """

    lengths: tuple[int, ...]
    ulysses_degree: int = 1
    ring_degree: int = 1
    window: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", whole_numbers("lengths", self.lengths))
        for name in ("ulysses_degree", "ring_degree", *(["window"] if self.window is not None else [])):
            object.__setattr__(self, name, whole_numbers(name, [getattr(self, name)])[0])
        if any(length < 1 for length in self.lengths):
            raise InputError(f"a packed row has an empty document: lengths={self.lengths}. Leave it out.")
        if self.ulysses_degree < 1 or self.ring_degree < 1:
            raise ConfigError(
                f"ulysses_degree={self.ulysses_degree}, ring_degree={self.ring_degree}: "
                "both must be at least 1."
            )
        if self.window is not None and self.window < 1:
            raise ConfigError(f"window={self.window} must be at least 1, or none for no sliding window.")

    @property
    def sp_size(self) -> int:
        """Ranks that share the row."""
        return self.ulysses_degree * self.ring_degree

    @cached_property
    def num_tokens(self) -> int:
        """Tokens of all documents, without padding."""
        return sum(self.lengths)

    @cached_property
    def padded_length(self) -> int:
        """Positions of the row: the next multiple of 2 · ring_degree · ulysses_degree, and at least one."""
        multiple = 2 * self.sp_size
        return max(-(-self.num_tokens // multiple), 1) * multiple

    @property
    def local_length(self) -> int:
        """Positions that each rank owns."""
        return self.padded_length // self.sp_size

    @property
    def ring_length(self) -> int:
        """Positions that each ring place holds, between the two all-to-alls of attention."""
        return self.padded_length // self.ring_degree

    @property
    def chunk_length(self) -> int:
        """Positions in one zigzag chunk."""
        return self.ring_length // 2

    @cached_property
    def cu_seqlens(self) -> np.ndarray:
        """Where documents begin, and the end of the last: int64 [documents + 1], from 0."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)]).astype(np.int64)

    def position_ids(self) -> np.ndarray:
        """Return each position's place in its own document, int64 [padded_length]; 0 in the padding."""
        ids = np.zeros(self.padded_length, dtype=np.int64)
        starts = np.repeat(self.cu_seqlens[:-1], self.lengths)
        ids[: self.num_tokens] = np.arange(self.num_tokens) - starts
        return ids

    def document_lengths(self) -> np.ndarray:
        """Return the length of each position's document, int64 [padded_length]; 1 in the padding."""
        lengths = np.ones(self.padded_length, dtype=np.int64)
        lengths[: self.num_tokens] = np.repeat(self.lengths, self.lengths)
        return lengths

    def runs(self, ring_rank: int) -> tuple[Span, ...]:
        """Return the contiguous stretches of positions that a ring place holds, in order: one or two."""
        size = self.chunk_length
        early, late = zigzag_chunks(ring_rank, self.ring_degree)
        if early + 1 == late:
            return (Span(early * size, (late + 1) * size),)
        return Span(early * size, (early + 1) * size), Span(late * size, (late + 1) * size)

    def ring_positions(self, ring_rank: int) -> np.ndarray:
        """Return the positions that a ring place holds, int64 [ring_length]."""
        return np.concatenate(
            [np.arange(run.start, run.stop, dtype=np.int64) for run in self.runs(ring_rank)]
        )

    def positions_of(self, sp_rank: int) -> np.ndarray:
        """Return the positions that a rank owns, int64 [local_length]; those >= num_tokens are padding."""
        check_sp_rank(sp_rank, self.sp_size)
        ring_rank, ulysses_rank = divmod(sp_rank, self.ulysses_degree)
        start = ulysses_rank * self.local_length
        return self.ring_positions(ring_rank)[start : start + self.local_length]

    def owners(self, positions: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return for each position the sp rank that owns it, and its place there (both int64)."""
        ring_rank, offset = self._ring_places(np.asarray(positions, dtype=np.int64))
        ulysses_rank, local = np.divmod(offset, self.local_length)
        return ring_rank * self.ulysses_degree + ulysses_rank, local

    def _ring_places(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for each position the ring place that holds it, and where in its ``ring_length``."""
        chunk, inside = np.divmod(positions, self.chunk_length)
        late = chunk >= self.ring_degree
        ring_rank = np.where(late, 2 * self.ring_degree - 1 - chunk, chunk)
        return ring_rank, inside + np.where(late, self.chunk_length, 0)

    def to_ring(self, position: int) -> int:
        """Return where a position lies in the buffer of the ring place that holds it."""
        return int(self._ring_places(np.asarray(position, dtype=np.int64))[1])

    def regions(self, ring_rank: int) -> tuple[tuple[Region, ...], ...]:
        """Return what a ring place computes: at step t, against the keys of ring place ring_rank + t.

        Over all ring places and steps, the regions cover the causal mask of every document exactly once.
        """
        own = self.runs(ring_rank)
        first = chain.from_iterable(own_regions(run, self.cu_seqlens, self.window) for run in own)
        steps = [
            self._between(ring_rank, (ring_rank + t) % self.ring_degree) for t in range(self.ring_degree)
        ]
        return (*first, *steps[0]), *steps[1:]

    def sends(self, owner: int, consumer: int) -> tuple[Span, ...]:
        """Return the positions whose K and V ring place ``owner`` sends to ``consumer``: just what it needs.

        At most one span of each of the owner's runs, always reaching to the run's end.
        """
        assert owner != consumer
        regions = self._between(consumer, owner)
        starts = [[r.k.start for r in regions if r.k.stop == run.stop] for run in self.runs(owner)]
        return tuple(
            Span(min(found), run.stop) for run, found in zip(self.runs(owner), starts, strict=True) if found
        )

    def _between(self, consumer: int, owner: int) -> tuple[Region, ...]:
        """Cut what the queries of one ring place see of other runs that a ring place holds."""
        pairs = [(q_run, k_run) for q_run in self.runs(consumer) for k_run in self.runs(owner)]
        return tuple(
            region
            for q_run, k_run in pairs
            for region in cross_region(q_run, k_run, self.cu_seqlens, self.window)
        )


def whole_numbers(name: str, values: Iterable[Any]) -> tuple[int, ...]:
    """Return integers of any kind as Python's own. Raises InputError for anything else."""
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError as error:
        raise InputError(f"{name}={values} must be whole numbers: {error}.") from error


def check_sp_rank(sp_rank: int, sp_size: int) -> None:
    """Raise ConfigError for a rank that is not among those of one sequence."""
    if not 0 <= sp_rank < sp_size:
        raise ConfigError(
            f"sp_rank={sp_rank} is not one of the {sp_size} ranks that share a sequence. Give "
            "groups.sp_rank, not the rank in the world."
        )


def zigzag_chunks(ring_rank: int, ring_degree: int) -> tuple[int, int]:
    """Return the early and the late chunk, of 2 * ring_degree, that one ring place holds."""
    return ring_rank, 2 * ring_degree - 1 - ring_rank


def shift_labels(labels_T: np.ndarray, cu_seqlens: np.ndarray | Sequence[int]) -> np.ndarray:
    """Give every token the label of its successor; the last token of each document is not scored.

    Done on the whole row, before it is sharded: at a joint of two ranks the successor is elsewhere. Raises
    InputError unless the documents lie within the labels.
    """
    ends = np.asarray(cu_seqlens, dtype=np.int64)[1:]
    if labels_T.ndim != 1 or (len(ends) and not 0 < ends.min() <= ends.max() <= len(labels_T)):
        raise InputError(
            f"labels of shape {labels_T.shape} do not hold documents that end at {ends.tolist()}. Give the "
            "labels of one row as one list, and cu_seqlens, the ends after a 0: layout.cu_seqlens."
        )
    shifted = np.full_like(labels_T, IGNORE_INDEX)
    shifted[:-1] = labels_T[1:]
    shifted[ends - 1] = IGNORE_INDEX
    return shifted
