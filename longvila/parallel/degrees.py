"""Which (ulysses_degree, ring_degree) sends the fewest bytes between nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from longvila.errors import ConfigError
from longvila.parallel.heads import HeadPlan
from longvila.parallel.layout import Layout
from longvila.parallel.traffic import attention_traffic, between_nodes


@dataclass(frozen=True)
class DegreeChoice:
    """One pair of degrees and what one attention layer, forward and backward, sends over all its ranks."""

    ulysses_degree: int
    ring_degree: int
    between_nodes_bytes: int
    within_nodes_bytes: int
    head_imbalance: float  # heads of the fullest rank ÷ mean

    def cost(self, node_speedup: float) -> float:
        """Bytes as if all went between nodes, when messages inside a node are so many times faster."""
        return self.between_nodes_bytes + self.within_nodes_bytes / node_speedup


def choose_degrees(
    *,
    tokens: int,
    num_heads: int,
    num_kv_heads: int,
    head_size: int,
    nodes: int,
    ranks_per_node: int,
    element_bytes: int = 2,
    node_speedup: float = 8.0,
    degrees: Iterable[tuple[int, int]] | None = None,
) -> list[DegreeChoice]:
    """Return all pairs of degrees for one sequence over ``nodes`` × ``ranks_per_node`` ranks, best first.

    ``degrees`` limits them to some. ``tokens`` is the length of one long document; ``node_speedup`` how many
    times faster messages inside a node are. Ranks of a node are consecutive. Raises ConfigError for
    impossible clusters and degrees.
    """
    sp_size = nodes * ranks_per_node
    if min(nodes, ranks_per_node) < 1 or node_speedup <= 0:
        raise ConfigError(
            f"nodes={nodes}, ranks_per_node={ranks_per_node}, node_speedup={node_speedup}: "
            "the first two must be at least 1, the last more than 0."
        )
    every = ((ulysses, sp_size // ulysses) for ulysses in range(1, sp_size + 1) if sp_size % ulysses == 0)
    choices = []
    for ulysses_degree, ring_degree in degrees or every:
        if ulysses_degree * ring_degree != sp_size:
            raise ConfigError(f"degrees={ulysses_degree} × {ring_degree} are not {sp_size} ranks.")
        if ulysses_degree > num_heads:
            continue
        layout = Layout((tokens,), ulysses_degree, ring_degree)
        traffic = attention_traffic(
            layout,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_size=head_size,
            element_bytes=element_bytes,
        ).total
        within = int(np.trace(between_nodes(traffic, ranks_per_node)))
        most = max(q.size for q in HeadPlan(num_heads, num_kv_heads, ulysses_degree).q_ranges)
        choices.append(
            DegreeChoice(
                ulysses_degree=ulysses_degree,
                ring_degree=ring_degree,
                between_nodes_bytes=int(traffic.sum()) - within,
                within_nodes_bytes=within,
                head_imbalance=most * ulysses_degree / num_heads,
            )
        )
    return sorted(choices, key=lambda choice: (choice.cost(node_speedup), choice.head_imbalance))
