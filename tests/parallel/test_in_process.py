"""Many ranks as threads: attention at degrees that need no processes, and what happens when a rank fails."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from longvila.errors import ConfigError
from longvila.parallel import Groups, Layout, make_attend, make_exchange, make_plan
from longvila.parallel.in_process import RankFailed, run_in_process
from tests.parity import reference

HEAD_SIZE = 4


def attend_on_rank(groups: Groups, layout: Layout, qkv: list[Tensor], dout: Tensor) -> list[Tensor]:
    """The rank's output and gradients, [H, t, D] each."""
    mine = torch.from_numpy(layout.positions_of(groups.sp_rank))
    leaves = [x[:, mine].requires_grad_() for x in qkv]
    out = make_attend(layout, groups)(*(x[None] for x in leaves), scale=0.5)
    grads = torch.autograd.grad(out, leaves, dout[:, mine].transpose(0, 1)[None])
    return [out[0].transpose(0, 1).detach(), *grads]


@pytest.mark.parametrize(
    ("degrees", "heads", "kv_heads"),
    [((4, 8), 28, 4), ((8, 2), 28, 4), ((16, 4), 16, 2), ((1, 32), 2, 1), ((32, 1), 32, 8)],
)
def test_attention_on_up_to_64_ranks(degrees: tuple[int, int], heads: int, kv_heads: int) -> None:
    lengths = (300, 1, 77, 201)
    layout = Layout(lengths, *degrees)
    random = partial(torch.randn, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = layout.padded_length
    qkv = [random(count, rows, HEAD_SIZE) for count in (heads, kv_heads, kv_heads)]
    dout = random(heads, rows, HEAD_SIZE)
    work = partial(attend_on_rank, layout=layout, qkv=qkv, dout=dout)
    results = run_in_process(work, ulysses_degree=degrees[0], ring_degree=degrees[1])
    order = torch.cat([torch.from_numpy(layout.positions_of(rank)) for rank in range(layout.sp_size)])
    found = [
        torch.cat(parts, dim=1)[:, order.argsort()][:, : layout.num_tokens]
        for parts in zip(*results, strict=True)
    ]
    leaves = [x[:, : layout.num_tokens].clone().requires_grad_() for x in qkv]
    out = reference.attention(*leaves, reference.document_mask(lengths), scale=0.5)
    wanted = [out.detach(), *torch.autograd.grad(out, leaves, dout[:, : layout.num_tokens])]
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-10)


def exchange_on_rank(groups: Groups) -> Tensor:
    plan = make_plan((64,), range(0, 60, 4), tokens_per_frame=3, ulysses_degree=4, ring_degree=2)
    features = torch.full((len(plan.frames_of(groups.sp_rank)), 3, 2), float(groups.sp_rank))
    return make_exchange(plan, groups)(features)


def test_visual_tokens_and_small_messages_of_two_replicas() -> None:
    def on_rank(groups: Groups) -> tuple[int, float, list[int]]:
        rows = exchange_on_rank(groups)
        total = groups.world.all_reduce(torch.tensor(float(groups.rank)))
        groups.sp.barrier()
        return len(rows), float(total), groups.sp.gather_objects(groups.rank)

    results = run_in_process(on_rank, ulysses_degree=4, ring_degree=2, world_size=16)
    assert sum(rows for rows, _, _ in results) == 2 * 15 * 3
    assert {total for _, total, _ in results} == {sum(range(16))}
    assert [ranks for _, _, ranks in results] == [list(range(8))] * 8 + [list(range(8, 16))] * 8


def test_an_error_of_one_rank_ends_all() -> None:
    def on_rank(groups: Groups) -> None:
        if groups.rank == 1:
            raise ValueError("rank 1 has enough")
        groups.world.barrier()

    with pytest.raises(ValueError, match="rank 1 has enough"):
        run_in_process(on_rank, ulysses_degree=4)


def test_a_rank_that_ends_too_early_does_not_leave_others_waiting() -> None:
    def on_rank(groups: Groups) -> None:
        if groups.rank:
            groups.world.barrier()

    with pytest.raises(RankFailed, match="rank 0 of this group has ended without sending"):
        run_in_process(on_rank, ulysses_degree=4)


def test_degrees_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not divide the world of 3"):
        run_in_process(lambda groups: groups.rank, ulysses_degree=2, world_size=3)
