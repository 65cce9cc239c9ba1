"""The layout alone, without any process: who owns, who computes, who sends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longvila.errors import ConfigError, InputError
from longvila.parallel.layout import IGNORE_INDEX, Layout, shift_labels, zigzag_chunks
from longvila.parallel.regions import Kind, Region

LENGTHS = st.lists(st.integers(1, 60) | st.integers(1, 4), min_size=0, max_size=12).map(tuple)
WINDOWS = st.none() | st.integers(1, 70)
RINGS = st.sampled_from([1, 2, 3, 4, 5, 8, 12, 16, 32])
DEGREES = st.sampled_from([(u, r) for u in (1, 2, 3, 4, 8, 16) for r in (1, 2, 3, 4, 8, 16) if u * r <= 64])


def visible_pairs(lengths: Sequence[int], window: int | None, size: int) -> np.ndarray:
    """The causal mask per document, [size, size], padding all zero."""
    documents = np.full(size, -1)
    documents[: sum(lengths)] = np.repeat(np.arange(len(lengths)), lengths)
    query, key = np.arange(size)[:, None], np.arange(size)
    mask = (key <= query) & (documents[:, None] == documents) & (documents >= 0)
    return mask if window is None else mask & (key > query - window)


def computed_pairs(regions: Iterable[Region], size: int) -> np.ndarray:
    """How often each pair of query and key is computed, [size, size]."""
    count = np.zeros((size, size), dtype=np.int64)
    for region in regions:
        ahead = np.arange(region.k.size) - np.arange(region.q.size)[:, None]
        if region.kind is Kind.CAUSAL:
            assert region.q == region.k, "kernels disagree about causal rectangles"
        seen = {
            Kind.CAUSAL: ahead <= 0,
            Kind.DENSE: np.ones_like(ahead, dtype=bool),
            Kind.BAND: ahead > region.edge,
        }[region.kind]
        assert seen.any(axis=1).all(), "a query without a key has no lse"
        assert region.q.size > 0
        count[region.q.start : region.q.stop, region.k.start : region.k.stop] += seen
    return count


def all_regions(layout: Layout, ring_rank: int) -> list[Region]:
    return [region for step in layout.regions(ring_rank) for region in step]


@given(LENGTHS, DEGREES)
def test_every_position_has_one_owner(lengths: tuple[int, ...], degrees: tuple[int, int]) -> None:
    layout = Layout(lengths, *degrees)
    owned = [layout.positions_of(rank) for rank in range(layout.sp_size)]
    assert {len(positions) for positions in owned} == {layout.local_length}
    assert sorted(np.concatenate(owned)) == list(range(layout.padded_length))
    for rank, positions in enumerate(owned):
        owners, places = layout.owners(positions)
        assert set(owners.tolist()) == {rank}
        assert places.tolist() == list(range(layout.local_length))


@given(LENGTHS, DEGREES)
def test_the_row_is_padded_once_and_as_little_as_possible(
    lengths: tuple[int, ...], degrees: tuple[int, int]
) -> None:
    layout = Layout(lengths, *degrees)
    multiple = 2 * degrees[0] * degrees[1]
    assert layout.padded_length % multiple == 0
    assert layout.num_tokens == sum(lengths) <= layout.padded_length
    assert layout.padded_length - max(layout.num_tokens, 1) < multiple


@given(LENGTHS, DEGREES)
def test_after_the_ulysses_all_to_all_a_ring_place_holds_its_zigzag_chunks_in_order(
    lengths: tuple[int, ...], degrees: tuple[int, int]
) -> None:
    layout = Layout(lengths, *degrees)
    ulysses_degree, ring_degree = degrees
    for ring_rank in range(ring_degree):
        ranks = range(ring_rank * ulysses_degree, (ring_rank + 1) * ulysses_degree)
        held = np.concatenate([layout.positions_of(rank) for rank in ranks])
        chunks = np.arange(layout.padded_length).reshape(2 * ring_degree, -1)
        assert held.tolist() == chunks[list(zigzag_chunks(ring_rank, ring_degree))].ravel().tolist()
        assert [layout.to_ring(position) for position in held] == list(range(layout.ring_length))


@settings(max_examples=300)
@given(LENGTHS, RINGS, WINDOWS)
def test_the_regions_cover_the_mask_exactly_once(
    lengths: tuple[int, ...], ring_degree: int, window: int | None
) -> None:
    layout = Layout(lengths, 1, ring_degree, window)
    regions = [region for rank in range(ring_degree) for region in all_regions(layout, rank)]
    count = computed_pairs(regions, layout.padded_length)
    assert (count == visible_pairs(lengths, window, layout.padded_length)).all()


@pytest.mark.parametrize("window", [None, 100])
def test_the_regions_cover_the_mask_exactly_once_on_64_places(window: int | None) -> None:
    layout = Layout((300, 1, 77, 500, 12), 1, 64, window)
    regions = [region for rank in range(64) for region in all_regions(layout, rank)]
    count = computed_pairs(regions, layout.padded_length)
    assert (count == visible_pairs(layout.lengths, window, layout.padded_length)).all()


@given(LENGTHS, RINGS, WINDOWS)
def test_a_place_computes_for_its_own_queries_with_keys_of_the_step(
    lengths: tuple[int, ...], ring_degree: int, window: int | None
) -> None:
    layout = Layout(lengths, 1, ring_degree, window)
    for ring_rank in range(ring_degree):
        for t, regions in enumerate(layout.regions(ring_rank)):
            owner = (ring_rank + t) % ring_degree
            for region in regions:
                assert layout.owners(range(*region.q))[0].tolist() == [ring_rank] * region.q.size
                assert layout.owners(range(*region.k))[0].tolist() == [owner] * region.k.size


@given(LENGTHS, RINGS, WINDOWS)
def test_each_true_position_is_a_query_of_one_causal_square(
    lengths: tuple[int, ...], ring_degree: int, window: int | None
) -> None:
    layout = Layout(lengths, 1, ring_degree, window)
    regions = [region for rank in range(ring_degree) for region in layout.regions(rank)[0]]
    rows = [row for region in regions if region.kind is Kind.CAUSAL for row in range(*region.q)]
    assert sorted(rows) == list(range(layout.num_tokens))


@given(LENGTHS, RINGS, WINDOWS)
def test_what_is_sent_is_what_is_needed(
    lengths: tuple[int, ...], ring_degree: int, window: int | None
) -> None:
    layout = Layout(lengths, 1, ring_degree, window)
    for consumer in range(ring_degree):
        for t, regions in enumerate(layout.regions(consumer)[1:], start=1):
            owner = (consumer + t) % ring_degree
            sent = [position for span in layout.sends(owner, consumer) for position in range(*span)]
            needed = {position for region in regions for position in range(*region.k)}
            assert len(sent) == len(set(sent))
            assert set(sent) == needed


@pytest.mark.parametrize("length", [1 << 14, (1 << 14) - 77])
@pytest.mark.parametrize(
    "degrees", [(1, 2), (3, 3), (2, 4), (8, 8), (1, 16), (4, 16), (1, 32), (2, 32), (1, 64)]
)
def test_one_long_document_is_balanced(degrees: tuple[int, int], length: int) -> None:
    layout = Layout((length,), *degrees)
    work = [
        sum(
            region.q.size * region.k.size / (2 if region.kind is Kind.CAUSAL else 1)
            for region in all_regions(layout, rank)
        )
        for rank in range(layout.ring_degree)
    ]
    assert max(work) <= 1.05 * sum(work) / layout.ring_degree


def test_zigzag_sends_three_quarters_of_the_keys() -> None:
    layout = Layout((1 << 12,), 1, 4)
    sent = [
        span.size for owner in range(4) for c in range(4) if c != owner for span in layout.sends(owner, c)
    ]
    assert sum(sent) == 0.75 * layout.padded_length * 3


def test_documents_of_one_place_send_nothing() -> None:
    layout = Layout((64,) * 8, 1, 4)
    assert not any(
        layout.sends(owner, consumer) for owner in range(4) for consumer in range(4) if owner != consumer
    )


def test_positions_restart_in_every_document() -> None:
    assert Layout((3, 2), 2, 1).position_ids().tolist() == [0, 1, 2, 0, 1, 0, 0, 0]


@given(LENGTHS)
def test_labels_are_shifted_inside_their_document(lengths: tuple[int, ...]) -> None:
    documents = [np.arange(length) + 100 * i for i, length in enumerate(lengths)]
    labels = np.concatenate([*documents, np.empty(0)]).astype(np.int64)
    wanted = [[*document[1:].tolist(), IGNORE_INDEX] for document in documents]
    shifted = shift_labels(labels, Layout(lengths).cu_seqlens)
    assert shifted.tolist() == [label for document in wanted for label in document]


@pytest.mark.parametrize(
    ("shape", "ends"), [((5,), (0, 3, 8)), ((5,), (0, -1)), ((1, 5), (0, 5)), ((0,), (0, 1))]
)
def test_labels_that_do_not_hold_the_documents_are_refused(
    shape: tuple[int, ...], ends: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match=r"do not hold documents .* layout\.cu_seqlens"):
        shift_labels(np.zeros(shape, dtype=np.int64), ends)


@pytest.mark.parametrize("sp_rank", [-1, 4, 7])
def test_the_rank_in_the_world_is_no_place_in_a_sequence(sp_rank: int) -> None:
    with pytest.raises(ConfigError, match=r"not one of the 4 ranks .* Give groups\.sp_rank"):
        Layout((40,), 2, 2).positions_of(sp_rank)


@pytest.mark.parametrize(
    "given_", [{"lengths": (3.5,)}, {"lengths": ("3",)}, {"ulysses_degree": 2.0}, {"window": 1.5}]
)
def test_what_is_no_whole_number_is_refused(given_: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(given_))}=.* must be whole numbers"):
        Layout(**{"lengths": (3,), **given_})


def test_whole_numbers_of_any_kind_are_taken() -> None:
    layout = Layout(tuple(np.array([3, 2])), int(np.int64(2)), window=torch.tensor(4))  # pyright: ignore
    assert layout == Layout((3, 2), 2, window=4)
    assert all(type(value) is int for value in (*layout.lengths, layout.window))


def test_an_empty_document_is_refused() -> None:
    with pytest.raises(InputError, match=r"lengths=\(3, 0\)\. Leave it out"):
        Layout((3, 0))


@pytest.mark.parametrize(
    ("settings_", "mend"), [((0, 1, None), "at least 1"), ((1, 1, 0), "none for no sliding")]
)
def test_impossible_settings_are_refused(settings_: tuple[int, int, int | None], mend: str) -> None:
    with pytest.raises(ConfigError, match=mend):
        Layout((3,), *settings_)
