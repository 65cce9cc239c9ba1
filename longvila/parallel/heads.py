"""Which Ulysses rank works on which attention heads.

Degrees need not divide the heads: 28 query and 4 KV heads on 8 ranks become 4, 3, 4, 3, … query heads with
one KV head each. A KV head that several ranks need is sent to each of them; it is never expanded to its
query heads, neither on the wire nor after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from longvila.errors import ConfigError


class HeadRange(NamedTuple):
    """Heads ``[start, stop)``."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many heads."""
        return self.stop - self.start


class UniformHeads(NamedTuple):
    """Query and KV heads, counted from a rank's first, in which every KV head serves equally many queries."""

    q: slice
    kv: slice


@dataclass(frozen=True)
class HeadPlan:
    """The division of ``num_heads`` query heads and their KV heads over ``ulysses_degree`` ranks."""

    num_heads: int
    num_kv_heads: int
    ulysses_degree: int

    def __post_init__(self) -> None:
        if min(self.num_heads, self.num_kv_heads, self.ulysses_degree) < 1:
            raise ConfigError(
                f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}, "
                f"ulysses_degree={self.ulysses_degree}: all must be at least 1."
            )
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}. "
                "Every KV head must serve the same number of query heads."
            )
        if self.ulysses_degree > self.num_heads:
            raise ConfigError(
                f"ulysses_degree={self.ulysses_degree} exceeds the {self.num_heads} attention heads. "
                f"Use at most {self.num_heads} and put the rest into ring_degree."
            )

    @property
    def queries_per_kv(self) -> int:
        """How many query heads share one KV head."""
        return self.num_heads // self.num_kv_heads

    @cached_property
    def q_ranges(self) -> tuple[HeadRange, ...]:
        """Each rank's query heads. Cuts fall on borders of KV groups where that costs no balance."""
        degree, kv_heads = self.ulysses_degree, self.num_kv_heads
        if degree % kv_heads == 0:
            inside = _split(self.queries_per_kv, degree // kv_heads)
            starts = [kv * self.queries_per_kv for kv in range(kv_heads)]
            return tuple(
                HeadRange(first + part.start, first + part.stop) for first in starts for part in inside
            )
        return _split(self.num_heads, degree)

    @cached_property
    def kv_ranges(self) -> tuple[HeadRange, ...]:
        """The KV heads that each rank's query heads look at."""
        return tuple(_kv_of(q, self.queries_per_kv) for q in self.q_ranges)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Heads of q, k and v together that each rank receives of every token."""
        return tuple(q.size + 2 * kv.size for q, kv in zip(self.q_ranges, self.kv_ranges, strict=True))

    def uniform(self, ulysses_rank: int) -> tuple[UniformHeads, ...]:
        """Cut a rank's heads into at most three pieces that a grouped-query kernel can take."""
        return _uniform(self.q_ranges[ulysses_rank], self.kv_ranges[ulysses_rank], self.queries_per_kv)

    @property
    def most_groups(self) -> int:
        """Into how many groups heads can be divided: as many as the rank with the fewest query heads has."""
        return min(q.size for q in self.q_ranges)

    def parts(self, head_groups: int = 0) -> tuple[HeadPart, ...]:
        """Divide the heads into groups that go through one after another; 0 means one group.

        Each rank's share is divided, so a KV head is sent once, with the first group that looks at it. With
        no more groups than a rank has KV heads, none is looked at by two groups (of these a ring would have
        to exchange the keys twice). Raises ConfigError when a rank would have nothing to do for a group.
        """
        if head_groups < 0:
            raise ConfigError(f"head_groups={head_groups} must be at least 1, or 0 for one group.")
        groups = max(head_groups, 1)
        if groups > self.most_groups:
            raise ConfigError(
                f"head_groups={head_groups} is more than the {self.most_groups} query heads that a rank "
                f"holds (num_heads={self.num_heads} on ulysses_degree={self.ulysses_degree}). "
                f"Use at most {self.most_groups}."
            )
        by_rank = [
            _divide_share(q, kv, self.queries_per_kv, groups)
            for q, kv in zip(self.q_ranges, self.kv_ranges, strict=True)
        ]
        shares = self.queries_per_kv
        q_parts = [tuple(cuts[group] for cuts in by_rank) for group in range(groups)]
        kv_parts = [tuple(_kv_of(q, shares) for q in part) for part in q_parts]
        none = tuple(HeadRange(kv.start, kv.start) for kv in self.kv_ranges)
        after = [*kv_parts[1:], tuple(HeadRange(kv.stop, kv.stop) for kv in self.kv_ranges)]
        return tuple(
            HeadPart(
                q=q,
                kv=kv,
                arriving=tuple(
                    HeadRange(max(b.stop, k.start), k.stop) for b, k in zip(before, kv, strict=True)
                ),
                ended=tuple(
                    HeadRange(k.start, min(k.stop, a.start)) for k, a in zip(kv, following, strict=True)
                ),
                queries_per_kv=shares,
            )
            for q, kv, before, following in zip(q_parts, kv_parts, [none, *kv_parts[:-1]], after, strict=True)
        )


@dataclass(frozen=True)
class HeadPart:
    """Heads that go through together: of every rank's heads a share, listed by rank.

    ``q`` are the query heads and ``kv`` the KV heads they look at; ``arriving`` are those of ``kv`` that no
    earlier part looked at, ``ended`` those that no later part will look at.
    """

    q: tuple[HeadRange, ...]
    kv: tuple[HeadRange, ...]
    arriving: tuple[HeadRange, ...]
    ended: tuple[HeadRange, ...]
    queries_per_kv: int

    def uniform(self, ulysses_rank: int) -> tuple[UniformHeads, ...]:
        """Cut a rank's heads of this part into at most three pieces that a grouped-query kernel can take."""
        return _uniform(self.q[ulysses_rank], self.kv[ulysses_rank], self.queries_per_kv)


def _kv_of(q: HeadRange, queries_per_kv: int) -> HeadRange:
    """Return the KV heads that query heads look at."""
    return HeadRange(q.start // queries_per_kv, (q.stop - 1) // queries_per_kv + 1)


def _divide_share(q: HeadRange, kv: HeadRange, queries_per_kv: int, groups: int) -> list[HeadRange]:
    """Divide a rank's query heads into groups: at borders of KV heads if there are enough of these."""
    if groups > kv.size:
        return [HeadRange(q.start + cut.start, q.start + cut.stop) for cut in _split(q.size, groups)]
    cuts = [(kv.start + cut.start, kv.start + cut.stop) for cut in _split(kv.size, groups)]
    return [
        HeadRange(max(q.start, start * queries_per_kv), min(q.stop, stop * queries_per_kv))
        for start, stop in cuts
    ]


def _uniform(q: HeadRange, kv: HeadRange, queries_per_kv: int) -> tuple[UniformHeads, ...]:
    served = [
        min(q.stop, (head + 1) * queries_per_kv) - max(q.start, head * queries_per_kv)
        for head in range(kv.start, kv.stop)
    ]
    parts: list[UniformHeads] = []
    first = q_first = 0
    for head in range(1, len(served) + 1):
        if head == len(served) or served[head] != served[first]:
            q_stop = q_first + sum(served[first:head])
            parts.append(UniformHeads(slice(q_first, q_stop), slice(first, head)))
            first, q_first = head, q_stop
    return tuple(parts)


def _split(total: int, parts: int) -> tuple[HeadRange, ...]:
    """Contiguous ranges whose sizes differ by at most one, the larger first."""
    size, rest = divmod(total, parts)
    stops = [size * (i + 1) + min(i + 1, rest) for i in range(parts)]
    return tuple(HeadRange(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True))
