from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvila.data.lengths import Lengths
from longvila.data.packing import Packer, RunPlan, plan_run
from longvila.errors import InputError


def lengths_of(*tokens: int) -> Lengths:
    return Lengths(np.array(tokens, dtype=np.int64), np.array([min(t, 2) for t in tokens], dtype=np.int64))


def plan(lengths: list[Lengths], **changed) -> RunPlan:
    arguments = {"seed": 0, "order": "shuffled", "max_tokens": 100, "rows_per_step": 2, **changed}
    return plan_run(lengths, [1.0] * len(lengths), **arguments)


def packed(lengths: list[int], max_tokens: int, **settings) -> list[list[int]]:
    packer = Packer(max_tokens, **settings)
    rows = [row for draw, length in enumerate(lengths) for row in packer.add(draw, length)]
    return rows + list(packer.flush())


def test_first_fit_fills_the_earliest_row_with_room() -> None:
    assert packed([60, 60, 30, 30, 10, 10], 100) == [[0, 2, 4], [1, 3, 5]]
    assert packed([60, 60, 60, 40], 100, window=2) == [[0], [1, 3], [2]]
    with pytest.raises(InputError, match="does not fit max_tokens=100"):
        packed([101], 100)


def test_a_row_without_room_for_the_shortest_is_closed_at_once() -> None:
    assert packed([50, 90, 50, 40], 100, shortest=40) == [[1], [0, 2], [3]]


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
