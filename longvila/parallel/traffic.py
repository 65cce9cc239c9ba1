"""How many bytes MM-SP sends from whom to whom, from lengths alone.

Exact: tests count what really travels and compare. The planner chooses degrees by it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from longvila.parallel.heads import HeadPart, HeadPlan
from longvila.parallel.layout import Layout
from longvila.parallel.plan import Plan


class Traffic(NamedTuple):
    """Bytes from each sp rank (row) to each other (column), int64 [sp_size, sp_size]."""

    forward: np.ndarray
    backward: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Both directions of the computation together."""
        return self.forward + self.backward


def attention_traffic(
    layout: Layout,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_size: int,
    element_bytes: int = 2,
    head_groups: int = 0,
    keep_keys: bool = False,
    recomputed: bool = False,
) -> Traffic:
    """Return the traffic of one attention layer.

    With ``keep_keys`` keys travel in the forward pass only. ``recomputed``: under activation checkpointing
    that keeps attention's results, the backward pass swaps tokens for heads once more; the ring's messages
    are not repeated.
    """
    plan = HeadPlan(num_heads, num_kv_heads, layout.ulysses_degree)
    row_bytes = head_size * element_bytes
    sent = _ring_rows(layout)
    forward = np.zeros((layout.sp_size, layout.sp_size), dtype=np.int64)
    backward = forward.copy()
    for part in plan.parts(head_groups):
        to_heads, to_tokens = _swaps(layout, part)
        ring = _by_kv_heads(sent, part)
        forward += to_heads + to_tokens + ring
        backward += _swaps_of_gradients(layout, part) + ring.T + (0 if keep_keys else ring)
        if recomputed:
            backward += to_heads + to_tokens
    return Traffic(forward * row_bytes, backward * row_bytes)


def exchange_traffic(plan: Plan, *, width: int, element_bytes: int = 2, trained: bool = True) -> Traffic:
    """Return the traffic of the visual tokens of one packed row, ``width`` numbers each.

    Without ``trained`` (tower and projector frozen) no gradient travels back.
    """
    counts = np.array([plan.route(rank).send_counts for rank in range(plan.layout.sp_size)], dtype=np.int64)
    np.fill_diagonal(counts, 0)
    forward = counts * width * element_bytes
    return Traffic(forward, forward.T.copy() if trained else np.zeros_like(forward))


def between_nodes(traffic_ss: np.ndarray, ranks_per_node: int) -> np.ndarray:
    """Add up a table of bytes [s, s] by node: int64 [n, n], of which the diagonal stays inside a node."""
    nodes = -(-len(traffic_ss) // ranks_per_node)
    node_of = np.arange(len(traffic_ss)) // ranks_per_node
    table = np.zeros((nodes, nodes), dtype=np.int64)
    np.add.at(table, (node_of[:, None], node_of[None, :]), traffic_ss)
    return table


def _ring_rows(layout: Layout) -> np.ndarray:
    """Return how many rows of K and V each ring place sends to each other one."""
    ring = range(layout.ring_degree)
    sent = np.zeros((layout.ring_degree, layout.ring_degree), dtype=np.int64)
    for owner in ring:
        for consumer in ring:
            if owner != consumer:
                sent[owner, consumer] = sum(span.size for span in layout.sends(owner, consumer))
    return sent


def _by_kv_heads(sent: np.ndarray, part: HeadPart) -> np.ndarray:
    """Return heads × rows of K and V between sp ranks in the ring."""
    kv_heads = np.diag([2 * kv.size for kv in part.kv])
    return np.kron(sent, kv_heads)


def _swaps(layout: Layout, part: HeadPart) -> tuple[np.ndarray, np.ndarray]:
    """Return heads × tokens between sp ranks: q, k, v to heads, and the output back to tokens."""
    arriving = [q.size + 2 * kv.size for q, kv in zip(part.q, part.arriving, strict=True)]
    queries = [q.size for q in part.q]
    return _within_places(layout, arriving, to_heads=True), _within_places(layout, queries, to_heads=False)


def _swaps_of_gradients(layout: Layout, part: HeadPart) -> np.ndarray:
    queries = [q.size for q in part.q]
    ended = [q.size + 2 * kv.size for q, kv in zip(part.q, part.ended, strict=True)]
    return _within_places(layout, queries, to_heads=True) + _within_places(layout, ended, to_heads=False)


def _within_places(layout: Layout, heads: list[int], *, to_heads: bool) -> np.ndarray:
    """Return heads × tokens that ranks of one ring place swap, when rank u works on ``heads[u]`` heads."""
    table = np.tile(np.array(heads, dtype=np.int64), (len(heads), 1)) * layout.local_length
    np.fill_diagonal(table, 0)
    return np.kron(np.eye(layout.ring_degree, dtype=np.int64), table if to_heads else table.T)
