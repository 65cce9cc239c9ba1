"""Frames over ranks, and the table of who sends which visual token to whom."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvila.errors import ConfigError, InputError
from longvila.parallel.plan import Plan, divide_frames, make_plan

DEGREES = st.sampled_from([(1, 1), (2, 1), (1, 2), (3, 2), (2, 4), (8, 8)])


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Documents of text and frames in any order, on up to 64 ranks. In half of them frames differ in size."""
    size = st.integers(1, 9)
    sizes = size if draw(st.booleans()) else st.just(draw(size))
    items = st.none() | sizes
    documents = draw(st.lists(st.lists(items, min_size=1, max_size=8), min_size=1, max_size=4))
    ulysses_degree, ring_degree = draw(DEGREES)
    seats, tokens, lengths, position = [], [], [], 0
    for document in documents:
        start = position
        for num_tokens in document:
            seats += [position] if num_tokens else []
            tokens += [num_tokens] if num_tokens else []
            position += num_tokens or 3
        lengths.append(position - start)
    return make_plan(
        lengths,
        seats,
        tokens_per_frame=tokens,
        patches_per_frame=[4 * count for count in tokens],
        ulysses_degree=ulysses_degree,
        ring_degree=ring_degree,
    )


@given(plans())
def test_every_frame_is_encoded_once(plan: Plan) -> None:
    shares = [plan.frames_of(rank).tolist() for rank in range(plan.layout.sp_size)]
    assert [frame for share in shares for frame in share] == list(range(plan.num_frames))
    if len(set(plan.frame_tokens.tolist())) == 1:
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(plans())
def test_the_exchange_seats_every_visual_token(plan: Plan) -> None:
    sp_size = plan.layout.sp_size
    routes = [plan.route(rank) for rank in range(sp_size)]
    outboxes: list[list[np.ndarray]] = []
    for rank, route in enumerate(routes):
        of_frames = [plan.frame_seats[i] + np.arange(plan.frame_tokens[i]) for i in plan.frames_of(rank)]
        tokens = np.concatenate([np.zeros(0, dtype=np.int64), *of_frames])  # a token is its position
        assert len(tokens) == plan.num_rows(rank)
        cuts = np.cumsum(route.send_counts)[:-1]
        outboxes.append(np.split(tokens[route.send_rows], cuts))
    for rank, route in enumerate(routes):
        arrived = [outbox[rank] for outbox in outboxes]
        assert tuple(map(len, arrived)) == route.receive_counts
        seated = np.concatenate(arrived)[route.place]
        assert seated.tolist() == plan.layout.positions_of(rank)[plan.local_seats(rank)].tolist()


def smallest_largest_share(patches: list[int], sp_size: int) -> int:
    """The best that contiguous shares can be, by trying."""
    best = {(0, 0): 0}
    for stop in range(len(patches) + 1):
        for count in range(1, sp_size + 1):
            tries = [
                max(best[start, count - 1], sum(patches[start:stop]))
                for start in range(stop + 1)
                if (start, count - 1) in best
            ]
            if tries:
                best[stop, count] = min(tries)
    return best[len(patches), sp_size]


@given(st.lists(st.integers(1, 50), max_size=7), st.integers(1, 4))
def test_no_other_division_has_a_smaller_largest_share(patches: list[int], sp_size: int) -> None:
    bounds = divide_frames(np.array(patches, dtype=np.int64), sp_size)
    loads = [sum(patches[start:stop]) for start, stop in pairwise(bounds)]
    assert max(loads) == smallest_largest_share(patches, sp_size)


@given(st.lists(st.integers(1, 50), max_size=200), st.integers(1, 64))
def test_frames_are_divided_by_their_patches(patches: list[int], sp_size: int) -> None:
    bounds = divide_frames(np.array(patches, dtype=np.int64), sp_size)
    assert bounds[0] == 0
    assert bounds[-1] == len(patches)
    assert len(bounds) == sp_size + 1
    assert (np.diff(bounds) >= 0).all()
    if patches:
        loads = [sum(patches[start:stop]) for start, stop in pairwise(bounds)]
        assert max(loads) < sum(patches) / sp_size + max(patches)


def test_a_frame_goes_to_the_nearer_share() -> None:
    assert divide_frames(np.array([1, 3]), 2).tolist() == [0, 1, 2]
    assert divide_frames(np.array([3, 1]), 2).tolist() == [0, 1, 2]
    assert divide_frames(np.array([2, 1, 1, 1, 1]), 2).tolist() == [0, 2, 5]


def test_a_large_frame_takes_the_place_of_several() -> None:
    plan = make_plan(
        (60,), range(0, 50, 10), tokens_per_frame=10, patches_per_frame=(4, 1, 1, 1, 1), ulysses_degree=2
    )
    assert [plan.frames_of(rank).tolist() for rank in range(2)] == [[0], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("seats", "problem"),
    [
        ((18,), "frame 0 .* do not lie within one document"),
        ((38,), "frame 0 .* do not lie within one document"),
        ((-1,), "frame 0 .* do not lie within one document"),
        ((0, 2), "frame 0 .* overlap those of the next frame"),
        ((30, 20), "frame 0 .* overlap those of the next frame"),
    ],
)
def test_seats_that_are_not_a_frames_own_are_refused(seats: tuple[int, ...], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        make_plan((20, 20), seats, tokens_per_frame=4)


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({"tokens_per_frame": (4, 4, 4)}, "tokens_per_frame has 3 entries for 2 frames. Give one for each"),
        ({"patches_per_frame": (1,)}, "patches_per_frame has 1 entries for 2 frames"),
        ({"tokens_per_frame": (4, 0)}, "a frame has at least 1. Leave empty frames out"),
    ],
)
def test_counts_that_do_not_fit_the_frames_are_refused(
    counts: dict[str, tuple[int, ...]], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        make_plan((20,), (0, 10), **counts)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame_seats": (0.5, 10)},
        {"frame_seats": ((0, 5), (10, 12))},
        {"tokens_per_frame": 2.5},
        {"patches_per_frame": ("1", "2")},
        {"lengths": (20.5,)},
    ],
)
def test_what_is_no_whole_number_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}=.* must be whole numbers"):
        make_plan(**{"lengths": (20,), "frame_seats": (0, 10), "tokens_per_frame": 2, **wrong})


@pytest.mark.parametrize("ask", ["frames_of", "num_rows", "local_seats", "route"])
def test_the_rank_in_the_world_is_no_place_in_a_sequence(ask: str) -> None:
    plan = make_plan((20,), (0, 10), tokens_per_frame=2, ulysses_degree=2)
    for sp_rank in (-1, 2):
        with pytest.raises(ConfigError, match=r"Give groups\.sp_rank"):
            getattr(plan, ask)(sp_rank)
