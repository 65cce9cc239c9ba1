"""Which videos have to be compared: those with near pictures.

Of each video a few pictures per second are looked up among those of all the others, in every view and
mirrored. Videos are numbered by rank, the best first; a candidate pair is always (a video, a better one). P
pictures of all videos, K hits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from longvila.curation.duplicates.fingerprint import BLANK, MIRROR, NUM_SEARCHED, Fingerprint
from longvila.curation.duplicates.hits import EXACT_BELOW, MAX_DISTANCE, find_hits
from longvila.curation.duplicates.pairs import ViewHits
from longvila.curation.duplicates.passages import View
from longvila.curation.sampling import SAMPLES_PER_S


class Pictures(NamedTuple):
    """The pictures by which videos are looked up, those of the best video first."""

    codes: np.ndarray  # uint64 [P, V]
    owners: np.ndarray  # int32 [P]
    times_s: np.ndarray  # float32 [P]


def key_samples(fingerprint: Fingerprint, per_s: float) -> np.ndarray:
    """Choose about ``per_s`` clear samples per second, int64: of neighbours, the one that changes least.

    A still moment looks the same when it is sampled a little earlier or later, as it is in a copy.
    """
    step = max(1, round(SAMPLES_PER_S / per_s))
    codes_S = fingerprint.codes[:, 0]
    if step == 1 or not len(codes_S):
        return np.flatnonzero(fingerprint.clear)
    steps = np.bitwise_count(codes_S[1:] ^ codes_S[:-1]).astype(np.int64)
    restless = np.concatenate([steps[:1], steps]) + np.concatenate([steps, steps[-1:]])
    restless = restless if len(steps) else np.zeros(1, dtype=np.int64)
    restless = np.where(fingerprint.clear, restless, 1000)
    starts = np.arange(0, len(codes_S), step)
    chosen = np.array([start + int(restless[start : start + step].argmin()) for start in starts])
    return chosen[fingerprint.clear[chosen]]


def gather(fingerprints: Iterable[tuple[Fingerprint, float]]) -> Pictures:
    """Gather the key pictures of videos in their rank; each comes with how many per second."""
    codes = [np.zeros((0, NUM_SEARCHED), dtype=np.uint64)]
    owners, times_s = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.float32)]
    for number, (fingerprint, per_s) in enumerate(fingerprints):
        chosen = key_samples(fingerprint, per_s)
        codes.append(fingerprint.codes[chosen, :NUM_SEARCHED])
        owners.append(np.full(len(chosen), number, dtype=np.int32))
        times_s.append((chosen / SAMPLES_PER_S).astype(np.float32))
    return Pictures(np.concatenate(codes), np.concatenate(owners), np.concatenate(times_s))


@dataclass(frozen=True)
class Candidates:
    """The hits between all videos, in the order of (video, better video, view, time)."""

    pictures: Pictures
    rows: np.ndarray  # int32 [K, 5]: video, better video, view, picture, better one's picture
    starts: Mapping[int, Sequence[tuple[int, int]]]  # of each video: the runs of rows, one per better video
    min_hits: int  # near pictures that make a pair

    def of(self, video: int) -> Iterator[tuple[int, list[ViewHits]]]:
        """Yield the better videos that this one has to be compared with, by rank, and the hits."""
        for start, stop in self.starts.get(video, ()):
            yield int(self.rows[start, 1]), list(_by_view(self.rows[start:stop], self.pictures))

    @property
    def num_pairs(self) -> int:
        """How many pairs there are."""
        return sum(len(runs) for runs in self.starts.values())


def find_candidates(
    pictures: Pictures,
    *,
    num_protected: int = 0,
    only_protected: bool = False,
    exact_below: int = EXACT_BELOW,
) -> Candidates:
    """Find pairs of videos with near pictures: one is enough among up to ``exact_below``, else it takes two.

    The first ``num_protected`` videos are not compared among themselves; with ``only_protected`` the others
    neither.
    """
    min_hits = 1 if len(pictures.codes) <= exact_below else 2
    rows = np.concatenate([_rows(pictures, view, exact_below) for view in _views()])
    rows = rows[rows[:, 0] >= num_protected]
    if only_protected:
        rows = rows[rows[:, 1] < num_protected]
    rows = rows[np.lexsort(rows.T[::-1])]
    starts: dict[int, list[tuple[int, int]]] = {}
    for start, stop in _groups(rows[:, :2], at_least=min_hits):
        if len(np.unique(rows[start:stop, 3])) >= min_hits:
            starts.setdefault(int(rows[start, 0]), []).append((start, stop))
    return Candidates(pictures, rows, starts, min_hits)


def _views() -> list[View]:
    middles = range(1, NUM_SEARCHED)
    return [View(a, 0, mirrored) for mirrored in (False, True) for a in (0, *middles)]


def _rows(pictures: Pictures, view: View, exact_below: int) -> np.ndarray:
    """Return hits as rows int32 [K, 5]: video, better video, number of the view, picture, better picture."""
    queries = pictures.codes[:, view.a] ^ (MIRROR if view.mirrored else BLANK)
    hits = find_hits(queries, pictures.codes[:, view.b], pictures.owners, exact_below=exact_below)
    q, n = hits.queries, hits.places
    worse = pictures.owners[q] > pictures.owners[n]
    if view.a == view.b:
        q, n = q[worse], n[worse]
        worse = worse[worse]
    a, b = np.where(worse, q, n), np.where(worse, n, q)
    code = np.where(worse, view.a, -view.a) * 2 + view.mirrored
    columns = (pictures.owners[a], pictures.owners[b], code, a, b)
    return np.stack(columns, axis=1).astype(np.int32)


def _by_view(rows: np.ndarray, pictures: Pictures) -> Iterator[ViewHits]:
    for start, stop in _groups(rows[:, 2:3], at_least=1):
        view, mirrored = divmod(int(rows[start, 2]), 2)
        q, n = rows[start:stop, 3], rows[start:stop, 4]
        found = View(max(view, 0), max(-view, 0), bool(mirrored))
        turned = MIRROR if found.mirrored else BLANK
        distances = np.bitwise_count(pictures.codes[q, found.a] ^ turned ^ pictures.codes[n, found.b])
        yield ViewHits(
            found,
            pictures.times_s[q].astype(np.float64),
            pictures.times_s[n].astype(np.float64),
            int((MAX_DISTANCE + 1 - distances.astype(np.int64)).sum()),
        )


def _groups(keys: np.ndarray, *, at_least: int) -> list[tuple[int, int]]:
    """Return (start, stop) of runs of equal rows, where they are long enough."""
    edges = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
    starts = np.concatenate([[0], edges]) if len(keys) else np.zeros(0, dtype=np.int64)
    stops = np.append(starts[1:], len(keys))
    long = stops - starts >= at_least if len(keys) else np.zeros(0, dtype=bool)
    return list(zip(starts[long].tolist(), stops[: len(starts)][long].tolist(), strict=True))
