"""Which pictures of many videos are nearly the same: buckets of equal bits instead of all with all.

Codes are cut into bands of bits; two pictures meet where one band is equal. The more pictures, the wider the
bands: a bucket holds about ``_BUCKET`` pictures, so the work grows with N and not with N². With few pictures
there is one bucket, and nothing is missed. What is common to very many (a white page) is compared with fewer.
N pictures, Q of them in one bucket, K hits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from longvila.curation.duplicates.fingerprint import NUM_BITS

MAX_DISTANCE = 10  # bits; pictures of different shots are seldom nearer than 13
EXACT_BELOW = 1 << 14
_BUCKET = 128
_MAX_BITS = 16
_BLOCK = 256  # queries of one bucket that are compared at once
_CROWD = 64  # hits of one picture in one bucket, on average


class Hits(NamedTuple):
    """Pairs of nearly equal pictures of different videos, sorted, each once."""

    queries: np.ndarray  # int64 [K]
    places: np.ndarray  # int64 [K]


def find_hits(
    queries_N: np.ndarray, codes_N: np.ndarray, owners_N: np.ndarray, *, exact_below: int = EXACT_BELOW
) -> Hits:
    """Find for each query (another code of picture n) the pictures of other videos that are near to it.

    Codes are uint64, ``owners_N`` says to which video a picture belongs. Up to ``exact_below`` pictures all
    hits are found; beyond, the nearer ones more surely than those at the limit. In a crowd (pictures like
    very many others) only the nearest and the first ones are given.
    """
    count = max(1, len(codes_N))
    found = [np.zeros(0, dtype=np.int64)]
    for shift, bits in bands(len(codes_N), exact_below=exact_below):
        for q, n in _buckets(_keys(queries_N, shift, bits), _keys(codes_N, shift, bits), exact_below):
            rows, columns = _near(queries_N[q], codes_N[n], owners_N[q], owners_N[n])
            if len(rows):
                found.append(q[rows] * count + n[columns])
    return Hits(*np.divmod(np.unique(np.concatenate(found)), count))


def bands(num_pictures: int, *, exact_below: int = EXACT_BELOW) -> list[tuple[int, int]]:
    """Return (first bit, number of bits) of each band for that many pictures."""
    if num_pictures <= exact_below:
        return [(0, 0)]
    bits = max(1, min(_MAX_BITS, int(np.log2(num_pictures / _BUCKET))))
    return [(shift, bits) for shift in range(0, NUM_BITS - bits + 1, bits)]


def _keys(codes: np.ndarray, shift: int, bits: int) -> np.ndarray:
    return ((codes >> np.uint64(shift)) & np.uint64((1 << bits) - 1)).astype(np.uint16)


def _buckets(keys_Q: np.ndarray, keys_N: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (queries, pictures) that have one key, a block of queries with at most ``most`` pictures."""
    order_Q = np.argsort(keys_Q, kind="stable")
    order_N = np.argsort(keys_N, kind="stable")
    shared = np.intersect1d(keys_Q, keys_N)
    sorted_Q, sorted_N = keys_Q[order_Q], keys_N[order_N]
    edges = [
        np.searchsorted(keys, shared, side=side).tolist()
        for keys in (sorted_Q, sorted_N)
        for side in ("left", "right")
    ]
    for first, stop, first_N, stop_N in zip(*edges, strict=True):
        pictures = order_N[first_N : min(stop_N, first_N + most)]
        for start in range(first, stop, _BLOCK):
            yield order_Q[start : min(stop, start + _BLOCK)], pictures


def _near(
    queries_Q: np.ndarray, codes_N: np.ndarray, owners_Q: np.ndarray, owners_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the hits of one bucket."""
    distances_QN = np.bitwise_count(queries_Q[:, None] ^ codes_N[None, :])
    rows, columns = np.nonzero(distances_QN <= MAX_DISTANCE)
    others = owners_Q[rows] != owners_N[columns]
    rows, columns = rows[others], columns[others]
    room = _CROWD * len(queries_Q)
    if len(rows) <= room:
        return rows, columns
    # The first videos are the best: one that is kept is among them, however many copies of it there are.
    first = np.arange(len(rows)) - np.searchsorted(rows, rows, side="left") < _CROWD // 2
    distances = distances_QN[rows, columns]
    within = np.cumsum(np.bincount(distances, minlength=MAX_DISTANCE + 1))
    nearest = distances < np.count_nonzero(within <= room)
    return rows[first | nearest], columns[first | nearest]
