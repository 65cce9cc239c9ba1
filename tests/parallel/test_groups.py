"""Who shares a sequence with whom."""

from __future__ import annotations

import pytest
import torch

from longvila.errors import ConfigError
from longvila.parallel import check_degrees, make_groups
from longvila.parallel.comm import OneProcess, TorchGroup
from longvila.parallel.groups import group_ranks, make_groups_of
from tests.distributed import RankFailed, run_ranks


def test_ulysses_ranks_are_neighbours_and_ring_ranks_stride_over_them() -> None:
    ulysses, ring, sp = group_ranks(ulysses_degree=2, ring_degree=2, world_size=8)
    assert ulysses == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert ring == ((0, 2), (1, 3), (4, 6), (5, 7))
    assert sp == ((0, 1, 2, 3), (4, 5, 6, 7))


def test_without_torch_distributed_there_are_groups_of_one() -> None:
    groups = make_groups(ulysses_degree=1, ring_degree=1)
    assert (groups.rank, groups.world_size, groups.dp_rank, groups.sp_rank) == (0, 1, 0, 0)
    for group in (groups.ulysses, groups.ring, groups.sp, groups.world):
        assert isinstance(group, OneProcess)
        assert group.gather_objects("x") == ["x"]
        group.barrier()


def test_degrees_without_processes_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"their product 4 does not divide .* Start a multiple of 4 processes"
    ):
        make_groups(ulysses_degree=2, ring_degree=2)


@pytest.mark.parametrize(("ulysses_degree", "ring_degree"), [(0, 1), (1, -2)])
def test_degrees_below_one_are_refused(ulysses_degree: int, ring_degree: int) -> None:
    with pytest.raises(ConfigError, match="both must be at least 1"):
        check_degrees(ulysses_degree=ulysses_degree, ring_degree=ring_degree, world_size=4)


def test_a_product_that_does_not_divide_names_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"one of \[1, 2, 3, 6\]"):
        check_degrees(ulysses_degree=2, ring_degree=2, world_size=6)


def places(_rank: int) -> list[tuple[int, ...]]:
    found = []
    for ulysses_degree, ring_degree in ((1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)):
        groups = make_groups(ulysses_degree=ulysses_degree, ring_degree=ring_degree)
        for group, size in ((groups.ulysses, ulysses_degree), (groups.ring, ring_degree), (groups.world, 4)):
            assert group.size == size
            assert isinstance(group, OneProcess if size == 1 else TorchGroup)
        assert groups.ulysses.rank == groups.ulysses_rank
        assert groups.ring.rank == groups.ring_rank
        assert groups.sp.rank == groups.sp_rank
        assert (
            groups.rank
            == (groups.dp_rank * ring_degree + groups.ring_rank) * ulysses_degree + groups.ulysses_rank
        )
        members = groups.sp.gather_objects(groups.rank)
        assert members == [groups.dp_rank * groups.sp_size + i for i in range(groups.sp_size)]
        assert groups.world.all_reduce(torch.ones(1)).item() == 4
        found.append((groups.dp_rank, groups.ring_rank, groups.ulysses_rank))
    return found


def test_every_rank_finds_its_place_in_real_processes() -> None:
    results = run_ranks(places, 4)
    assert results[3] == [(3, 0, 0), (1, 0, 1), (1, 1, 0), (0, 1, 1), (0, 0, 3), (0, 3, 0)]


def shared(_rank: int) -> list[int]:
    several = make_groups_of([(1, 1), (2, 1), (2, 2)])
    one, two, four = several
    assert [groups.sp_size for groups in several] == [1, 2, 4]
    assert isinstance(one.sp, OneProcess)
    assert two.sp is two.ulysses is four.ulysses
    assert four.sp is two.world is one.world
    assert four.ring not in (four.sp, four.ulysses)
    for groups in several:  # one after another, as micro-steps have them
        members = groups.sp.gather_objects(groups.rank)
        assert members == [groups.dp_rank * groups.sp_size + i for i in range(groups.sp_size)]
    return [groups.dp_rank for groups in several]


def test_several_degrees_share_their_process_groups() -> None:
    assert run_ranks(shared, 4) == [[0, 0, 0], [1, 0, 0], [2, 1, 0], [3, 1, 0]]


def test_each_of_several_degrees_must_divide_the_world() -> None:
    with pytest.raises(ConfigError, match="Start a multiple of 2 processes"):
        make_groups_of([(1, 1), (2, 1)])


def wrong_degrees(_rank: int) -> None:
    make_groups(ulysses_degree=2, ring_degree=1)


def test_an_odd_world_says_which_processes_to_start() -> None:
    with pytest.raises(RankFailed, match="Start a multiple of 2 processes"):
        run_ranks(wrong_degrees, 3)
