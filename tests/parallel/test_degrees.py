"""The pair of degrees that the planner prefers, where theory says which it is."""

from __future__ import annotations

from typing import Any

import pytest

from longvila.errors import ConfigError
from longvila.parallel import DegreeChoice, choose_degrees


def choices(num_heads: int, num_kv_heads: int, nodes: int, ranks_per_node: int = 8) -> list[DegreeChoice]:
    return choose_degrees(
        tokens=1 << 14,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_size=128,
        nodes=nodes,
        ranks_per_node=ranks_per_node,
    )


def degrees(choice: DegreeChoice) -> tuple[int, int]:
    return choice.ulysses_degree, choice.ring_degree


@pytest.mark.parametrize("nodes", [2, 4, 7])
def test_a_ring_between_nodes_under_grouped_queries(nodes: int) -> None:
    """Fewer bytes than Ulysses over all ranks up to 0.89 × (1 + 28 / 4) = 7 nodes."""
    assert degrees(choices(28, 4, nodes, ranks_per_node=4)[0]) == (4, nodes)


@pytest.mark.parametrize(("num_heads", "nodes"), [(64, 2), (64, 4)])
def test_ulysses_everywhere_for_plain_multi_head_attention(num_heads: int, nodes: int) -> None:
    assert degrees(choices(num_heads, num_heads, nodes)[0]) == (8 * nodes, 1)


def test_one_node_needs_no_ring() -> None:
    best = choices(16, 16, 1)[0]
    assert degrees(best) == (8, 1)
    assert best.between_nodes_bytes == 0


def test_heads_that_do_not_divide_are_told() -> None:
    imbalance = {degrees(choice): choice.head_imbalance for choice in choices(28, 4, 2)}
    assert imbalance[8, 2] == pytest.approx(4 / 3.5)
    assert imbalance[4, 4] == 1


def test_every_pair_that_fits_the_heads_is_there() -> None:
    assert {degrees(choice) for choice in choices(4, 2, 2)} == {(1, 16), (2, 8), (4, 4)}


@pytest.mark.parametrize(
    ("cluster", "mend"),
    [
        ({"nodes": 0}, "the first two must be at least 1"),
        ({"nodes": -2, "ranks_per_node": -4}, "the first two must be at least 1"),
        ({"node_speedup": 0}, "the last more than 0"),
        ({"degrees": [(4, 4)]}, "degrees=4 × 4 are not 8 ranks"),
    ],
)
def test_an_impossible_cluster_is_refused(cluster: dict[str, Any], mend: str) -> None:
    shape = {"tokens": 1 << 14, "num_heads": 4, "num_kv_heads": 2, "head_size": 128}
    with pytest.raises(ConfigError, match=mend):
        choose_degrees(**shape, **{"nodes": 2, "ranks_per_node": 4, **cluster})
