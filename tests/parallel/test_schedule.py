"""Kernel calls of a ring place: few, and each on the right rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longvila.parallel.kernels import Mask
from longvila.parallel.layout import Layout
from longvila.parallel.regions import Kind
from longvila.parallel.schedule import Schedule, make_schedule
from tests.parallel.test_layout import visible_pairs

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=20).map(tuple)


WINDOWS = st.none() | st.integers(1, 100)
RINGS = st.sampled_from([1, 2, 3, 4, 8])


def schedules(layout: Layout) -> list[Schedule]:
    return [make_schedule(layout, ring_rank, CPU) for ring_rank in range(layout.ring_degree)]


def test_one_document_on_one_place_is_one_call() -> None:
    (schedule,) = schedules(Layout((64,)))
    assert schedule.is_one_square
    assert not schedule.merges
    assert schedule.stack is None


def test_many_short_documents_are_few_calls() -> None:
    generator = torch.Generator().manual_seed(0)
    (schedule,) = schedules(Layout(tuple(torch.randint(10, 71, (64,), generator=generator).tolist())))
    assert schedule.stack is not None
    assert len(schedule.stack.calls) <= 5
    assert not schedule.squares
    assert not schedule.merges


@given(LENGTHS, st.sampled_from([1, 2, 4]))
def test_squares_and_stack_take_each_true_row_once(lengths: tuple[int, ...], ring_degree: int) -> None:
    layout = Layout(lengths, 1, ring_degree)
    for ring_rank, schedule in enumerate(schedules(layout)):
        rows = [row for call in schedule.squares for row in range(call.q.start, call.q.stop)]
        if schedule.stack is not None:
            stack = schedule.stack
            assert stack.rows[stack.kept_slots].tolist() == stack.kept_rows.tolist()
            assert sum(squares * size for _, squares, size in stack.calls) == len(stack.rows)
            assert len(stack.kept_slots) + len(stack.repeated_slots) == len(stack.rows)
            rows += stack.kept_rows.tolist()
        true_rows = layout.ring_positions(ring_rank) < layout.num_tokens
        assert sorted(rows) == true_rows.nonzero()[0].tolist()


@given(LENGTHS)
def test_a_stacked_square_repeats_its_last_token(lengths: tuple[int, ...]) -> None:
    (schedule,) = schedules(Layout(lengths))
    starts = torch.tensor([0, *lengths]).cumsum(0)
    stack = schedule.stack
    for first, squares, size in stack.calls if stack is not None else ():
        assert stack is not None
        for rows in stack.rows[first : first + squares * size].view(squares, size):
            document = int(torch.searchsorted(starts, rows[0], right=True)) - 1
            stop = int(starts[document + 1])
            assert rows.tolist() == [min(int(rows[0]) + i, stop - 1) for i in range(size)]


@pytest.mark.parametrize("window", [None, 30])
def test_both_sides_agree_on_every_message(window: int | None) -> None:
    layout = Layout((200, 100, 7), 1, 4, window)
    made = schedules(layout)
    for ring_rank, schedule in enumerate(made):
        for t, step in enumerate(schedule.steps):
            assert made[step.owner].steps[t].consumer == ring_rank
            assert made[step.owner].steps[t].sent == step.received
            assert all(call.k.stop <= step.received for call in step.calls)


def called_pairs(layout: Layout, ring_rank: int, schedule: Schedule) -> np.ndarray:
    """How often the kernel calls of one place compute each pair of positions of the row, [T, T]."""
    count = np.zeros((layout.padded_length, layout.padded_length), dtype=np.int64)
    mine = layout.ring_positions(ring_rank)

    def add(queries: np.ndarray, keys: np.ndarray, mask: Mask) -> None:
        seen = mask.visible(len(queries), len(keys), CPU).numpy()
        assert seen.any(axis=1).all(), "a query without a key has no lse"
        np.add.at(count, (queries[:, None], keys[None, :]), seen)

    for call in (*schedule.squares, *schedule.own):
        add(mine[call.q], mine[call.k], call.mask)
    if schedule.stack is not None:
        rows, kept = schedule.stack.rows.numpy(), np.zeros(len(schedule.stack.rows), dtype=bool)
        kept[schedule.stack.kept_slots.numpy()] = True
        for first, squares, size in schedule.stack.calls:
            for start in range(first, first + squares * size, size):
                true = mine[rows[start : start + size][kept[start : start + size]]]
                add(true, true, Mask(Kind.CAUSAL))
    for step in schedule.steps:
        arrived = [np.arange(*span) for span in layout.sends(step.owner, ring_rank)]
        keys = np.concatenate([np.zeros(0, dtype=np.int64), *arrived])
        for call in step.calls:
            add(mine[call.q], keys[call.k], call.mask)
    return count


@settings(max_examples=200)
@given(LENGTHS, RINGS, WINDOWS)
def test_the_calls_cover_the_mask_exactly_once(
    lengths: tuple[int, ...], ring_degree: int, window: int | None
) -> None:
    layout = Layout(lengths, 1, ring_degree, window)
    count = sum(called_pairs(layout, rank, one) for rank, one in enumerate(schedules(layout)))
    assert np.array_equal(count, visible_pairs(lengths, window, layout.padded_length))


@pytest.mark.parametrize("ring_degree", [2, 4, 8])
def test_one_document_is_one_call_a_step(ring_degree: int) -> None:
    """The early and the late chunk are one square, and what a step brings is one rectangle."""
    for schedule in schedules(Layout((1 << 14,), 1, ring_degree)):
        assert len(schedule.squares) == 1
        assert not schedule.own
        assert schedule.stack is None
        assert [len(step.calls) for step in schedule.steps] == [1] * (ring_degree - 1)
