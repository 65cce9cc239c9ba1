"""What the tables of traffic say is what really travels, to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from longvila.parallel import Groups, Layout, make_attend, make_exchange, make_groups, make_plan
from longvila.parallel.comm import Group, TorchGroup, Work
from longvila.parallel.traffic import Traffic, attention_traffic, between_nodes, exchange_traffic
from tests.distributed import run_ranks

HEAD_SIZE, WIDTH = 8, 5
CASES: list[dict[str, object]] = [
    {"lengths": (64,), "num_heads": 4, "num_kv_heads": 4},
    {"lengths": (61, 3, 40), "num_heads": 8, "num_kv_heads": 2},
    {"lengths": (200,), "num_heads": 28, "num_kv_heads": 4, "head_groups": 3},
    {"lengths": (90, 13), "num_heads": 14, "num_kv_heads": 2, "window": 20},
    {"lengths": (5,) * 20, "num_heads": 7, "num_kv_heads": 1},
    {"lengths": (61, 3, 40), "num_heads": 8, "num_kv_heads": 2, "keep_keys": True},
]


class Counting(TorchGroup):
    """Counts the bytes that this rank sends to each sp rank; on CPU all are sent by ``exchange``."""

    def __init__(self, group: dist.ProcessGroup, sent: np.ndarray) -> None:
        super().__init__(group)
        self._ranks = dist.get_process_group_ranks(group)
        self._sent = sent

    def exchange(
        self, *, sends: Sequence[tuple[int, Tensor]], receives: Sequence[tuple[int, Tensor]]
    ) -> Work:
        for peer, tensor in sends:
            self._sent[self._ranks[peer]] += tensor.nbytes
        return super().exchange(sends=sends, receives=receives)


def counted_groups(degrees: tuple[int, int], sent: np.ndarray) -> Groups:
    groups = make_groups(ulysses_degree=degrees[0], ring_degree=degrees[1])
    sp_size = degrees[0] * degrees[1]

    def counting(group: Group, ranks: Sequence[int]) -> Group:
        if group.size == 1:
            return group
        world = dist.group.WORLD
        made = world if len(ranks) == sp_size else dist.new_group(list(ranks), use_local_synchronization=True)
        assert made is not None
        return Counting(made, sent)

    first = groups.rank - groups.ulysses_rank
    return replace(
        groups,
        ulysses=counting(groups.ulysses, range(first, first + degrees[0])),
        ring=counting(groups.ring, range(groups.ulysses_rank, sp_size, degrees[0])),
        sp=counting(groups.sp, range(sp_size)),
    )


def attention_on_rank(_rank: int, degrees: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    sent = np.zeros(degrees[0] * degrees[1], dtype=np.int64)
    groups = counted_groups(degrees, sent)
    results = []
    for case in usable(degrees):
        layout = Layout(case["lengths"], *degrees)  # pyright: ignore[reportArgumentType]
        t = layout.local_length
        q, k, v = (
            torch.zeros(1, heads, t, HEAD_SIZE, dtype=torch.bfloat16, requires_grad=True)
            for heads in (case["num_heads"], case["num_kv_heads"], case["num_kv_heads"])
        )
        options = {name: case[name] for name in ("head_groups", "keep_keys") if name in case}
        attend = make_attend(layout, groups, **options)  # pyright: ignore[reportArgumentType]
        sent[:] = 0
        out = attend(q, k, v, scale=1.0, window=case.get("window"))  # pyright: ignore[reportArgumentType]
        forward = sent.copy()
        out.sum().backward()
        results.append((forward, sent - forward))
    return results


def usable(degrees: tuple[int, int]) -> list[dict[str, object]]:
    return [case for case in CASES if degrees[0] <= int(case["num_heads"])]  # pyright: ignore[reportArgumentType]


def expected(case: dict[str, object], degrees: tuple[int, int]) -> Traffic:
    shape = {name: value for name, value in case.items() if name not in ("lengths", "window")}
    layout = Layout(case["lengths"], *degrees, case.get("window"))  # pyright: ignore[reportArgumentType]
    return attention_traffic(layout, head_size=HEAD_SIZE, **shape)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("degrees", [(2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 2)])
def test_attention_sends_what_the_table_says(degrees: tuple[int, int]) -> None:
    results = run_ranks(attention_on_rank, degrees[0] * degrees[1], degrees)
    for number, case in enumerate(usable(degrees)):
        table = expected(case, degrees)
        assert np.array_equal(np.stack([result[number][0] for result in results]), table.forward), case
        assert np.array_equal(np.stack([result[number][1] for result in results]), table.backward), case


def exchange_on_rank(_rank: int) -> tuple[np.ndarray, np.ndarray]:
    sent = np.zeros(4, dtype=np.int64)
    groups = counted_groups((2, 2), sent)
    plan = make_plan((40, 30), (7, 20, 45), tokens_per_frame=(9, 3, 12), ulysses_degree=2, ring_degree=2)
    features = torch.zeros(plan.num_rows(groups.sp_rank), WIDTH, dtype=torch.bfloat16, requires_grad=True)
    rows = make_exchange(plan, groups)(features)
    forward = sent.copy()
    rows.sum().backward()
    return forward, sent - forward


def test_the_exchange_of_visual_tokens_sends_what_the_table_says() -> None:
    plan = make_plan((40, 30), (7, 20, 45), tokens_per_frame=(9, 3, 12), ulysses_degree=2, ring_degree=2)
    table = exchange_traffic(plan, width=WIDTH)
    results = run_ranks(exchange_on_rank, 4)
    assert np.array_equal(np.stack([forward for forward, _ in results]), table.forward)
    assert np.array_equal(np.stack([backward for _, backward in results]), table.backward)
    assert not exchange_traffic(plan, width=WIDTH, trained=False).backward.any()


def test_ranks_are_added_up_by_node() -> None:
    table = between_nodes(np.arange(16).reshape(4, 4), 2)
    assert table.tolist() == [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]]


def crossing(degrees: tuple[int, int], num_heads: int, num_kv_heads: int) -> int:
    """Bytes between nodes of as many ranks as Ulysses 8 has, or of two halves of a smaller world."""
    sp_size, nodes = degrees[0] * degrees[1], max(degrees[1], 2)
    layout = Layout((1 << 12,), *degrees)
    table = attention_traffic(layout, num_heads=num_heads, num_kv_heads=num_kv_heads, head_size=128).total
    by_node = between_nodes(table, sp_size // nodes)
    return int(by_node.sum() - np.trace(by_node))


@pytest.mark.parametrize(("num_heads", "num_kv_heads", "nodes"), [(28, 4, 2), (28, 4, 4), (16, 8, 2)])
def test_fewer_bytes_between_nodes_than_ulysses_alone_under_gqa(
    num_heads: int, num_kv_heads: int, nodes: int
) -> None:
    ours = crossing((4, nodes), num_heads, num_kv_heads)
    layout = Layout((1 << 12,), 4 * nodes, 1)
    table = attention_traffic(layout, num_heads=num_heads, num_kv_heads=num_kv_heads, head_size=128).total
    by_node = between_nodes(table, 4)
    assert ours < by_node.sum() - np.trace(by_node)


def test_half_of_the_relays_bytes_at_ring_2() -> None:
    """A relay sends K and V whole, again on the way back, and there dK and dV in float32, one hop more."""
    layout = Layout((1 << 12,), 1, 2)
    ours = attention_traffic(layout, num_heads=14, num_kv_heads=2, head_size=64).total.sum()
    block = layout.ring_length * 2 * 2 * 64 * 2
    relay = 2 * (block + block + 2 * 2 * block)
    assert ours / relay == pytest.approx(2.25 / 6)
    kept = attention_traffic(layout, num_heads=14, num_kv_heads=2, head_size=64, keep_keys=True).total.sum()
    assert kept / relay == pytest.approx(1.5 / 6)
