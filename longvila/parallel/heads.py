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
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}. "
                "Every KV head must serve the same number of query heads."
            )
        if self.ulysses_degree > self.num_heads:
            raise ConfigError(
                f"ulysses_degree={self.ulysses_degree} exceeds the {self.num_heads} attention heads that "
                f"go through at once. Use at most {self.num_heads} and put the rest into ring_degree."
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
        share = self.queries_per_kv
        return tuple(HeadRange(q.start // share, (q.stop - 1) // share + 1) for q in self.q_ranges)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Heads of q, k and v together that each rank receives of every token."""
        return tuple(q.size + 2 * kv.size for q, kv in zip(self.q_ranges, self.kv_ranges, strict=True))

    def uniform(self, ulysses_rank: int) -> tuple[UniformHeads, ...]:
        """Cut a rank's heads into at most three parts that a grouped-query kernel can take."""
        q, kv = self.q_ranges[ulysses_rank], self.kv_ranges[ulysses_rank]
        served = [
            min(q.stop, (head + 1) * self.queries_per_kv) - max(q.start, head * self.queries_per_kv)
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


def head_group_ranges(num_kv_heads: int, head_groups: int) -> tuple[HeadRange, ...]:
    """Divide KV heads (and with them their query heads) into groups that go through one after another.

    0 means one group. Raises ConfigError when there are more groups than KV heads.
    """
    if head_groups > num_kv_heads:
        raise ConfigError(
            f"head_groups={head_groups} is more than the {num_kv_heads} KV heads. Use at most {num_kv_heads}."
        )
    return _split(num_kv_heads, max(head_groups, 1))


def _split(total: int, parts: int) -> tuple[HeadRange, ...]:
    """Contiguous ranges whose sizes differ by at most one, the larger first."""
    size, rest = divmod(total, parts)
    stops = [size * (i + 1) + min(i + 1, rest) for i in range(parts)]
    return tuple(HeadRange(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True))
