"""Heads over Ulysses ranks, dividing or not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvila.config.degrees import fewest_heads
from longvila.errors import ConfigError
from longvila.parallel.heads import HeadPart, HeadPlan

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


def parts_of(plan: HeadPlan) -> list[tuple[HeadPart, ...]]:
    """The plan's heads in every possible number of groups."""
    return [plan.parts(groups) for groups in range(plan.most_groups + 1)]


@given(PLANS)
def test_parts_hold_every_query_head_of_every_rank_once(plan: HeadPlan) -> None:
    for parts in parts_of(plan):
        for rank, q in enumerate(plan.q_ranges):
            assert [head for part in parts for head in range(*part.q[rank])] == list(range(*q))
            assert all(part.q[rank].size for part in parts)


@given(PLANS)
def test_a_kv_head_arrives_once_and_ends_once_on_each_rank(plan: HeadPlan) -> None:
    for parts in parts_of(plan):
        for rank, kv in enumerate(plan.kv_ranges):
            for name in ("arriving", "ended"):
                heads = [head for part in parts for head in range(*getattr(part, name)[rank])]
                assert heads == list(range(*kv))


@given(PLANS)
def test_a_part_has_its_kv_heads_from_itself_and_the_part_before(plan: HeadPlan) -> None:
    for parts in parts_of(plan):
        for rank in range(plan.ulysses_degree):
            for before, part in pairwise([None, *parts]):
                assert part is not None
                q, kv, arriving = part.q[rank], part.kv[rank], part.arriving[rank]
                assert {head // plan.queries_per_kv for head in range(*q)} == set(range(*kv))
                carried = set(range(*kv)) - set(range(*arriving))
                assert len(carried) <= 1
                assert not carried or (before is not None and carried == {before.kv[rank].stop - 1})


@given(PLANS)
def test_parts_do_not_share_a_kv_head_while_there_are_enough(plan: HeadPlan) -> None:
    fewest = min(kv.size for kv in plan.kv_ranges)
    for parts in parts_of(plan)[: fewest + 1]:
        assert all(part.arriving == part.kv == part.ended for part in parts)


def test_28_heads_on_8_ranks_in_3_groups() -> None:
    parts = HeadPlan(28, 4, 8).parts(3)
    assert [[q.size for q in part.q] for part in parts] == [[2, 1] * 4, [1, 1] * 4, [1, 1] * 4]
    assert [[kv.size for kv in part.arriving] for part in parts] == [[1, 1] * 4, [0, 0] * 4, [0, 0] * 4]
    assert [[kv.size for kv in part.ended] for part in parts] == [[0, 0] * 4, [0, 0] * 4, [1, 1] * 4]


def test_more_groups_than_a_rank_has_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"head_groups=4 is more than the 3 query heads .* Use at most 3"):
        HeadPlan(28, 4, 8).parts(4)


@given(PLANS)
def test_a_recipe_knows_how_many_groups_there_can_be(plan: HeadPlan) -> None:
    assert fewest_heads(plan.num_heads, plan.num_kv_heads, plan.ulysses_degree) == plan.most_groups


@pytest.mark.parametrize("shape", [(0, 1, 1), (4, 0, 1), (4, 2, 0), (-4, -2, 1)])
def test_less_than_one_of_anything_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="all must be at least 1"):
        HeadPlan(*shape)
    with pytest.raises(ConfigError, match="head_groups=-1 must be at least 1"):
        HeadPlan(4, 2, 1).parts(-1)
