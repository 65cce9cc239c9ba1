"""Heads over Ulysses ranks, dividing or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvila.errors import ConfigError
from longvila.parallel.heads import HeadPlan, head_group_ranges

PLANS = (
    st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 32))
    .filter(lambda shape: shape[2] <= shape[0] * shape[1])
    .map(lambda shape: HeadPlan(shape[0] * shape[1], shape[0], shape[2]))
)


def test_28_heads_on_8_ranks() -> None:
    plan = HeadPlan(28, 4, 8)
    assert [heads.size for heads in plan.q_ranges] == [4, 3] * 4
    assert [tuple(heads) for heads in plan.kv_ranges] == [(kv, kv + 1) for kv in range(4) for _ in range(2)]
    assert plan.sizes == (6, 5) * 4


@given(PLANS)
def test_every_query_head_has_one_rank_and_its_kv_head_there(plan: HeadPlan) -> None:
    heads = [head for q in plan.q_ranges for head in range(*q)]
    assert heads == list(range(plan.num_heads))
    for q, kv in zip(plan.q_ranges, plan.kv_ranges, strict=True):
        assert q.size >= 1
        assert {head // plan.queries_per_kv for head in range(*q)} == set(range(*kv))


@given(PLANS)
def test_no_rank_has_much_more_than_its_share(plan: HeadPlan) -> None:
    assert max(q.size for q in plan.q_ranges) < plan.num_heads / plan.ulysses_degree + 1


@given(PLANS)
def test_kv_heads_are_never_sent_to_more_ranks_than_need_them(plan: HeadPlan) -> None:
    sent = sum(kv.size for kv in plan.kv_ranges)
    assert sent <= plan.num_kv_heads + plan.ulysses_degree - 1


@given(PLANS)
def test_uniform_parts_join_each_query_head_with_its_kv_head(plan: HeadPlan) -> None:
    for rank, (q, kv) in enumerate(zip(plan.q_ranges, plan.kv_ranges, strict=True)):
        served = []
        parts = plan.uniform(rank)
        assert len(parts) <= 3
        for part in parts:
            queries, keys = range(*q)[part.q], range(*kv)[part.kv]
            assert len(queries) % len(keys) == 0
            served += [(query, keys[i // (len(queries) // len(keys))]) for i, query in enumerate(queries)]
        assert served == [(query, query // plan.queries_per_kv) for query in range(*q)]


def test_more_ranks_than_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match="Use at most 4 and put the rest into ring_degree"):
        HeadPlan(4, 2, 8)


def test_kv_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_kv_heads=3 does not divide num_heads=8"):
        HeadPlan(8, 3, 1)


def test_head_groups_take_whole_kv_heads() -> None:
    assert [tuple(heads) for heads in head_group_ranges(5, 2)] == [(0, 3), (3, 5)]
    assert [tuple(heads) for heads in head_group_ranges(5, 0)] == [(0, 5)]
    with pytest.raises(ConfigError, match=r"head_groups=6 is more than the 5 KV heads\. Use at most 5"):
        head_group_ranges(5, 6)
