from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvila.data.lengths import Lengths
from longvila.data.packing import Packer, Row, plan_run
from longvila.data.run_plan import MicroStepPlan, RunPlan
from longvila.errors import InputError
from longvila.parallel.groups import group_ranks


def lengths_of(*tokens: int) -> Lengths:
    return Lengths(np.array(tokens, dtype=np.int64), np.array([min(t, 2) for t in tokens], dtype=np.int64))


def plan(lengths: list[Lengths], **changed) -> RunPlan:
    arguments = {"seed": 0, "order": "shuffled", "max_tokens": 100, "rows_per_step": 2, **changed}
    return plan_run(lengths, [1.0] * len(lengths), **arguments)


def packed(lengths: list[int], max_tokens: int, **settings) -> list[list[int]]:
    """The rows of a single degree."""
    packer = Packer([max_tokens], **{"shortest": [1], **settings})
    rows = [row for draw, length in enumerate(lengths) for row in packer.add(draw, length)]
    return [row.draws for row in (*rows, *packer.flush())]


def test_first_fit_fills_the_earliest_row_with_room() -> None:
    assert packed([60, 60, 30, 30, 10, 10], 100) == [[0, 2, 4], [1, 3, 5]]
    assert packed([60, 60, 60, 40], 100, window=2) == [[0], [1, 3], [2]]
    with pytest.raises(InputError, match="does not fit max_tokens=100"):
        packed([101], 100)


def test_a_row_without_room_for_the_shortest_is_closed_at_once() -> None:
    assert packed([50, 90, 50, 40], 100, shortest=[40]) == [[1], [0, 2], [3]]


LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=60)


@settings(deadline=None)
@given(lengths=LENGTHS, window=st.integers(1, 5))
def test_packing_loses_nothing(lengths: list[int], window: int) -> None:
    rows = packed(lengths, 100, window=window)
    assert sorted(draw for row in rows for draw in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[draw] for draw in row) <= 100 for row in rows)


@settings(deadline=None)
@given(
    tokens=LENGTHS,
    order=st.sampled_from(["shuffled", "short_first"]),
    rows_per_step=st.integers(1, 5),
    epochs=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_a_run_of_epochs_has_every_draw(
    tokens: list[int], order: str, rows_per_step: int, epochs: float
) -> None:
    run = plan([lengths_of(*tokens, 0)], order=order, rows_per_step=rows_per_step, epochs=epochs)
    counts = np.bincount(run.draws.sample, minlength=len(tokens) + 1)
    assert counts[-1] == 0  # an unusable sample never comes
    assert len(run.draws.sample) >= max(1, round(epochs * len(tokens)))
    if epochs >= 1:
        assert counts[:-1].min() >= epochs
    assert len(run.row_tokens) == run.num_steps * rows_per_step
    assert run.row_tokens.max() <= 100
    assert run.row_tokens.sum() == np.array([*tokens, 0])[run.draws.sample].sum()


@settings(deadline=None)
@given(tokens=LENGTHS, order=st.sampled_from(["shuffled", "short_first"]), steps=st.integers(1, 20))
def test_a_run_of_steps_has_so_many(tokens: list[int], order: str, steps: int) -> None:
    run = plan([lengths_of(*tokens)], order=order, steps=steps)
    assert run.num_steps == steps
    assert [len(run.rows_of(step)) for step in range(steps)] == [2] * steps
    members = [draw for row in range(2 * steps) for draw in run.row(row).sample.tolist()]
    assert members == run.draws.sample.tolist()
    assert run.row_scored.tolist() == [
        sum(min(tokens[sample], 2) for sample in run.row(row).sample) for row in range(2 * steps)
    ]


def test_a_plan_is_a_pure_function() -> None:
    lengths = [lengths_of(*range(1, 60)), lengths_of(*range(5, 40))]
    assert plan(lengths, steps=9).hash() == plan(lengths, steps=9).hash()
    others = [
        plan(lengths, steps=9, seed=1), plan(lengths, steps=9, order="short_first"), plan(lengths, steps=10),
        plan(lengths, steps=9, max_tokens=90), plan(lengths, steps=6, rows_per_step=3),
    ]  # fmt: skip
    assert len({run.hash() for run in others} | {plan(lengths, steps=9).hash()}) == 6


def test_a_longer_shuffled_run_begins_as_the_shorter() -> None:
    lengths = [lengths_of(*range(1, 60))]
    short, long = plan(lengths, steps=4), plan(lengths, steps=30)
    for row in range(8):
        assert short.row(row).sample.tolist() == long.row(row).sample.tolist()
    assert long.epoch_at(30) > 1
    assert long.epoch_at(0) == 0


def test_short_first_rises_over_the_whole_run() -> None:
    lengths = [lengths_of(*(1 + i % 50 for i in range(400)))]
    run = plan(lengths, steps=200, order="short_first")  # several epochs
    tokens = lengths[0].num_tokens[run.draws.sample]
    fifths = [part.mean() for part in np.array_split(tokens, 5)]
    assert fifths[:4] == sorted(fifths[:4])
    assert fifths[0] < 0.4 * fifths[4]
    assert run.epoch_at(200) > 1.5


def test_rows_are_well_filled() -> None:
    tokens = np.random.default_rng(0).integers(5, 60, 3000)
    run = plan([lengths_of(*tokens.tolist())], epochs=1)
    assert run.row_tokens.mean() > 97


def test_weights_are_shares_of_samples() -> None:
    lengths = [lengths_of(*[10] * 300), lengths_of(*[10] * 100)]
    run = plan_run(
        lengths, [1.0, 3.0], seed=0, order="shuffled", max_tokens=100, rows_per_step=1, steps=40
    )  # a tenth of each row
    assert abs((run.draws.dataset == 1).mean() - 0.75) < 0.05


SHAPES = st.sampled_from([(2, 1), (4, 1), (4, 2, 1), (12, 6, 2, 1), (3, 1)])
MAX_TOKENS = 120  # of a row of the largest degree


def micro_steps(run: RunPlan, dp_size: int) -> list[MicroStepPlan]:
    return [one for step in range(run.num_steps) for one in run.micro_steps(step, dp_size)]


def smallest_degree(run: RunPlan, tokens: int) -> int:
    return next(i for i, rows in enumerate(run.rows_per_bundle) if tokens * rows <= MAX_TOKENS)


def by_sample(run: RunPlan, tokens: list[int]) -> list[list[int]]:
    """The tokens of each sample, packed row by packed row."""
    rows = range(len(run.row_tokens))
    return [[tokens[sample] for sample in run.row(row).sample] for row in rows]


@settings(deadline=None)
@given(
    tokens=st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=60),
    rows_per_bundle=SHAPES,
    order=st.sampled_from(["shuffled", "short_first"]),
    rows_per_step=st.integers(1, 5),
    ending=st.sampled_from([{"epochs": 1.0}, {"epochs": 2.0}, {"steps": 7}]),
)
def test_every_rank_works_on_equally_many_rows_that_fit(
    tokens: list[int], rows_per_bundle: tuple[int, ...], order: str, rows_per_step: int, ending: dict
) -> None:
    run = plan(
        [lengths_of(*tokens)], max_tokens=MAX_TOKENS, rows_per_bundle=rows_per_bundle, order=order,
        rows_per_step=rows_per_step, **ending,
    )  # fmt: skip
    assert run.row_tokens.min() > 0
    assert run.row_tokens.sum() == sum(map(sum, by_sample(run, tokens)))
    for dp_size in [size for size in range(1, rows_per_step + 1) if rows_per_step % size == 0]:
        for step in range(run.num_steps):
            plans = run.micro_steps(step, dp_size)
            assert len(plans) == rows_per_step // dp_size
            assert sorted(row for one in plans for rows in one.rows for row in rows) == list(
                run.rows_of(step)
            )
            assert [one.degree_index for one in plans] == sorted(one.degree_index for one in plans)
        for one in micro_steps(run, dp_size):
            count = rows_per_bundle[one.degree_index]
            assert len(one.rows) == dp_size * count
            assert all(run.row_tokens[rows].sum() * count <= MAX_TOKENS for rows in map(list, one.rows))


@settings(deadline=None)
@given(
    tokens=st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=60),
    rows_per_bundle=SHAPES,
    rows_per_step=st.integers(1, 5),
)
def test_a_micro_step_takes_the_smallest_degree_that_fits(
    tokens: list[int], rows_per_bundle: tuple[int, ...], rows_per_step: int
) -> None:
    shape = {"max_tokens": MAX_TOKENS, "rows_per_bundle": rows_per_bundle, "rows_per_step": rows_per_step}
    run = plan([lengths_of(*tokens)], steps=6, **shape)
    members = by_sample(run, tokens)
    for bundle, degree in enumerate(run.bundle_degrees):
        rows = range(run.bundle_starts[bundle], run.bundle_starts[bundle + 1])
        assert {smallest_degree(run, tokens) for row in rows for tokens in members[row]} == {degree}
    for dp_size in (1, rows_per_step):
        for one in micro_steps(run, dp_size):
            longest = max(max(members[row]) for rows in one.rows for row in rows)
            assert one.degree_index == smallest_degree(run, longest)


@settings(deadline=None)
@given(tokens=st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=60), rows_per_bundle=SHAPES)
def test_epochs_end_with_less_than_a_bundle_of_each_degree_joined(
    tokens: list[int], rows_per_bundle: tuple[int, ...]
) -> None:
    run = plan([lengths_of(*tokens)], max_tokens=MAX_TOKENS, rows_per_bundle=rows_per_bundle, rows_per_step=1)
    assert sorted(run.draws.sample.tolist()) == list(range(len(tokens)))  # all, and none twice
    bundles = np.searchsorted(run.bundle_starts, np.arange(len(run.row_tokens)), side="right") - 1
    raised = [0] * len(rows_per_bundle)  # tokens by degree
    for row, members in enumerate(by_sample(run, tokens)):
        for sample in members:
            if smallest_degree(run, sample) < run.bundle_degrees[bundles[row]]:
                raised[smallest_degree(run, sample)] += sample
    assert all(found < MAX_TOKENS for found in raised)
    assert raised[-1] == 0


@pytest.mark.parametrize("world_size", [4, 8])
def test_the_ranks_of_an_sp_group_work_on_one_row(world_size: int) -> None:
    degrees = [(1, 1), (2, 1), (2, 2)]
    lengths = [lengths_of(*range(1, 101), *[10] * 900)]
    run = plan(lengths, rows_per_bundle=(4, 2, 1), rows_per_step=4, steps=20)
    seen = set()
    for one in micro_steps(run, world_size // 4):
        seen.add(one.degree_index)
        ulysses_degree, ring_degree = degrees[one.degree_index]
        groups = group_ranks(ulysses_degree=ulysses_degree, ring_degree=ring_degree, world_size=world_size)[2]
        for rows, ranks in zip(one.rows, groups, strict=True):
            assert {one.row_of(rank, world_size) for rank in ranks} == {rows}
    assert seen == {0, 1, 2}


def test_bundles_of_one_degree_are_worked_on_with_their_like() -> None:
    tokens = [30] * 30 + [60, 70, 80, 90] * 8
    run = plan([lengths_of(*tokens)], rows_per_bundle=(2, 1), rows_per_step=8, steps=4)
    for step in range(run.num_steps):
        micro = [one for one in run.micro_steps(step, 2) if one.degree_index == 1]
        totals = [int(run.row_tokens[rows.start]) for one in micro[1:] for rows in one.rows]
        assert totals == sorted(totals)


def test_rare_samples_do_not_wait_for_their_like() -> None:
    packer = Packer([25, 100], shortest=[10, 26])  # two draws of 10 fill a row, one of 51 does not
    closed = [row for draw, length in enumerate([51] + [10] * 170) for row in packer.add(draw, length)]
    assert Row(1, [0]) in closed
    assert closed.index(Row(1, [0])) >= 16 * 100 // 20 - 1


def test_the_plan_of_several_degrees_is_told_apart() -> None:
    lengths = [lengths_of(*range(1, 60))]
    plans = [plan(lengths, steps=9, rows_per_bundle=shape) for shape in ((1,), (2, 1), (4, 1), (4, 2, 1))]
    assert len({run.hash() for run in plans}) == 4
    assert plan(lengths, steps=9).hash() == plans[0].hash()
