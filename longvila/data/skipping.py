"""Broken samples that are skipped, in the same step on all ranks; see docs/design/broken-samples.md.

Each rank reads only its own frames, so one rank alone finds a damaged frame. Before a step is computed all
ranks tell each other what they found, and each makes its rows that are concerned again, with padding of the
same length in the place of the sample. So rows, micro-steps and the resume point stay as they were planned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from longvila.data.collate import BrokenMember, Collator, Member, PackedBatch, members_of
from longvila.data.lengths import Lengths
from longvila.data.mixture import Draws
from longvila.errors import InputError

logger = logging.getLogger(__name__)

Agree = Callable[[Sequence[int]], list[int]]
MAX_BROKEN_SHARE = 0.1  # of the samples that a process has seen, once there are …
MIN_BROKEN = 16  # … so many broken ones


class Made(NamedTuple):
    """A micro-batch, and which of its samples were taken to be broken when it was made."""

    row: Draws
    degree_index: int
    batch: PackedBatch
    broken: frozenset[Member]


class Skipper:
    """Finds broken samples, agrees on them with the other ranks, and counts them.

    ``agree`` returns the largest of each number over all ranks, the same everywhere (collective).
    """

    def __init__(self, collate: Collator, lengths: Sequence[Lengths], agree: Agree) -> None:
        self._collate = collate
        self._lengths = lengths
        self._agree = agree
        self._known: frozenset[Member] = frozenset()  # that all ranks agreed on
        self._seen = self._skipped = 0  # draws

    def make(self, row: Draws, degree_index: int) -> Made:
        """Make a micro-batch without the samples that cannot be read here. Called by many threads."""
        broken = self._known & set(members_of(row))
        while True:
            try:
                return Made(row, degree_index, self._collate(row, degree_index, broken=broken), broken)
            except BrokenMember as error:
                logger.warning("%s It is skipped.", error)
                broken |= {error.member}

    def settle(self, draws: Draws, mine: Sequence[Made]) -> tuple[list[PackedBatch], int, int]:
        """Agree on one step: its draws, and this rank's micro-batches of it (collective).

        Returns the micro-batches as they are to be computed, how many draws are skipped, and how many scored
        tokens are lost with them; both numbers are those of all ranks. Raises ``InputError`` on all ranks if
        so much is broken that something larger must be wrong.
        """
        members = members_of(draws)
        found = frozenset().union(*(made.broken for made in mine)) | self._known
        flags = self._agree([int(member in found) for member in members])
        skipped = [member for member, flag in zip(members, flags, strict=True) if flag]
        self._known |= frozenset(skipped)
        self._seen, self._skipped = self._seen + len(members), self._skipped + len(skipped)
        self._refuse_too_many()
        lost = sum(int(self._lengths[dataset].num_scored[i]) for dataset, i in skipped)
        return [self._again(made) for made in mine], len(skipped), lost

    def _again(self, made: Made) -> PackedBatch:
        broken = self._known & set(members_of(made.row))
        if broken == made.broken:
            return made.batch
        return self._collate(made.row, made.degree_index, broken=broken)

    def _refuse_too_many(self) -> None:
        if self._skipped >= MIN_BROKEN and self._skipped > MAX_BROKEN_SHARE * self._seen:
            raise InputError(
                f"{self._skipped} of {self._seen} samples could not be read, too many to be skipped "
                f"(more than {MAX_BROKEN_SHARE:.0%}). The log names them. Look at the disk or the bucket, "
                "and check the data sets (longvila data verify)."
            )
