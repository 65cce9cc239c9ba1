"""How many bytes all sources may have together: what fits is decided in the order of the list."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from longvila.errors import ItemError
from longvila.records import Rejection, Source

if TYPE_CHECKING:
    from longvila.curation.fetching.fetch import FetchedVideo

FULL = "set-full"


class Budget:
    """Watches one batch. ``used_bytes`` is what the batches before it took of ``limit_bytes``.

    A source fits when it and everything before it in the list do. Threads may fetch at once: one is refused
    early only when what is known of those before it leaves no room, which nothing learned later can change.
    """

    def __init__(self, sources: Sequence[Source], *, limit_bytes: int, used_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._used_bytes = used_bytes
        self._order = {source.source_id: number for number, source in enumerate(sources)}
        self._sizes: dict[int, int] = {}
        self._working: set[int] = set()
        self._changed = threading.Condition()

    def know(self, fetched: FetchedVideo) -> None:
        """A source was fetched, now or in an earlier run."""
        with self._changed:
            self._sizes[self._order[fetched.source_id]] = fetched.size_bytes

    def begin(self, source: Source) -> int:
        """Return how many bytes are left for a source. Raises ``ItemError`` set-full when it cannot fit."""
        with self._changed:
            number = self._order[source.source_id]
            room_bytes = self._room(number)
            if room_bytes <= 0 or room_bytes < (source.size_bytes or 0):
                raise self.full(source.source_id)
            self._working.add(number)
            return room_bytes

    def admit(self, source: Source, size_bytes: int) -> None:
        """Wait until those before it are done, then raise ``ItemError`` set-full unless it still fits."""
        with self._changed:
            number = self._order[source.source_id]
            self._changed.wait_for(lambda: all(other >= number for other in self._working))
            if size_bytes > self._room(number):
                raise self.full(source.source_id)
            self._sizes[number] = size_bytes

    def end(self, source: Source) -> None:
        """A source is done, whatever came of it."""
        with self._changed:
            self._working.discard(self._order[source.source_id])
            self._changed.notify_all()

    def full(self, source_id: str) -> ItemError:
        """The error for a source that does not fit."""
        return ItemError(
            FULL, f"{source_id}: with it the set is larger than {self.limit_bytes:,} bytes. {MEND}"
        )

    def _room(self, number: int) -> int:
        before = sum(size for other, size in self._sizes.items() if other < number)
        return self.limit_bytes - self._used_bytes - before


MEND = "Raise fetch.max_total_bytes to have it too."


def cut_where_full(
    sources: Sequence[Source],
    results: Sequence[FetchedVideo],
    rejections: Sequence[Rejection],
    *,
    limit_bytes: int,
    used_bytes: int,
) -> tuple[list[FetchedVideo], list[Rejection]]:
    """Keep the sources up to the first that does not fit; all behind it are rejections, fetched or not."""
    found = {result.source_id: result for result in results}
    reasons = {rejection.item_id: rejection for rejection in rejections}
    kept: list[FetchedVideo] = []
    left_out: list[Rejection] = []
    is_full = used_bytes >= limit_bytes
    for source in sources:
        result, rejection = found.get(source.source_id), reasons.get(source.source_id)
        is_full = is_full or (rejection is not None and rejection.reason == FULL)
        if result is not None and not is_full:
            is_full = used_bytes + result.size_bytes > limit_bytes
        if result is not None and not is_full:
            kept.append(result)
            used_bytes += result.size_bytes
        elif rejection is not None and (rejection.reason == FULL or result is None):
            left_out.append(rejection)
        else:
            detail = f"{source.source_id}: the set has {limit_bytes:,} bytes before it. {MEND}"
            left_out.append(Rejection(item_id=source.source_id, step="fetch", reason=FULL, detail=detail))
    return kept, left_out
