"""Joining partial results: exact, far apart, and with sinks."""

from __future__ import annotations

import torch

from longvila.parallel.merge import add_sinks, merge, sink_gradient, sum_dtype


def test_scores_far_apart_neither_overflow_nor_lose_the_larger() -> None:
    out, lse = torch.tensor([[[1.0]], [[1.0]]]), torch.tensor([[1000.0, -1000.0]])
    merge(out, lse, torch.tensor([[[2.0]], [[2.0]]]), torch.tensor([[-1000.0, 1000.0]]))
    assert out.flatten().tolist() == [1.0, 2.0]
    assert lse.flatten().tolist() == [1000.0, 1000.0]


def test_equal_scores_give_the_mean() -> None:
    out, lse = torch.zeros(1, 1, 2), torch.full((1, 1), 3.0)
    merge(out, lse, torch.ones(1, 1, 2), torch.full((1, 1), 3.0))
    assert out.flatten().tolist() == [0.5, 0.5]
    torch.testing.assert_close(lse, torch.tensor([[3.0 + torch.tensor(2.0).log()]]))


def test_half_precision_parts_are_joined_in_float32() -> None:
    assert sum_dtype(torch.bfloat16) == sum_dtype(torch.float32) == torch.float32
    assert sum_dtype(torch.float64) == torch.float64
    out, lse = torch.zeros(1, 1, 1), torch.zeros(1, 1)
    for _ in range(999):
        merge(out, lse, torch.ones(1, 1, 1, dtype=torch.bfloat16), torch.zeros(1, 1))
    torch.testing.assert_close(out.item(), 0.999, rtol=1e-4, atol=0)


def test_a_sink_takes_its_share() -> None:
    out, lse = add_sinks(torch.ones(1, 2, 1), torch.zeros(2, 1), torch.tensor([0.0, -1e4]))
    assert out.flatten().tolist() == [0.5, 1.0]
    torch.testing.assert_close(lse[0].exp(), torch.tensor([2.0]))
    assert sink_gradient(torch.ones(1, 2, 1), out, lse, torch.tensor([0.0, -1e4])).tolist() == [-0.25, 0.0]
