"""Checkpointing that keeps attention's results: same gradients, no second attention, no second exchange."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from longvila.parallel import Layout, keep_attention, make_attend, make_groups
from longvila.parallel.attention import Attend
from longvila.parallel.kernels import CpuFlash
from longvila.parallel.ring import RingAttention
from tests.distributed import run_ranks

LAYOUT = Layout((30, 11))


def layer(x_BTHD: Tensor, attend: Attend) -> Tensor:
    """Two attentions in one checkpointed function, each needing the other's output again."""
    for head_scale in (1.0, 2.0):
        q = (x_BTHD.sin() * head_scale).transpose(1, 2)
        x_BTHD = x_BTHD + attend(q, q[:, :2], q[:, 2:4], scale=0.3).cos()
    return x_BTHD


def gradient(attend: Attend, size: int, *, checkpointed: bool) -> Tensor:
    x = torch.randn(
        1, size, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    ).requires_grad_()
    if checkpointed:
        out: Tensor = checkpoint(layer, x, attend, use_reentrant=False, context_fn=keep_attention)
    else:
        out = layer(x, attend)
    out.square().sum().backward()
    assert x.grad is not None
    return x.grad


def test_gradients_are_the_same_and_attention_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = make_attend(LAYOUT, make_groups())
    wanted = gradient(attend, LAYOUT.local_length, checkpointed=False)
    calls: list[int] = []
    original = CpuFlash.forward

    def counted(self: CpuFlash, q: Tensor, *args: Tensor, **kwargs: object) -> tuple[Tensor, Tensor]:
        calls.append(q.shape[1])
        return original(self, q, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(CpuFlash, "forward", counted)
    assert torch.equal(gradient(attend, LAYOUT.local_length, checkpointed=True), wanted)
    kept = len(calls)
    calls.clear()
    gradient(attend, LAYOUT.local_length, checkpointed=False)
    assert kept == len(calls) > 0


def test_a_second_backward_through_the_same_graph_attends_again() -> None:
    attend = make_attend(LAYOUT, make_groups())
    x = torch.randn(1, LAYOUT.local_length, 4, 8, dtype=torch.float64).requires_grad_()
    out: Tensor = checkpoint(layer, x, attend, use_reentrant=False, context_fn=keep_attention)
    (first,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
    (second,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(first, second)


def on_rank(_rank: int) -> tuple[Tensor, Tensor, int, int]:
    groups = make_groups(ulysses_degree=1, ring_degree=2)
    layout = Layout(LAYOUT.lengths, 1, 2)
    attend = make_attend(layout, groups)
    forwards: list[bool] = []
    original = RingAttention.forward

    def counted(self: RingAttention, q_ThD: Tensor, k_TgD: Tensor, v_TgD: Tensor) -> tuple[Tensor, Tensor]:
        forwards.append(True)
        return original(self, q_ThD, k_TgD, v_TgD)

    RingAttention.forward = counted
    plain = gradient(attend, layout.local_length, checkpointed=False)
    without = len(forwards)
    kept = gradient(attend, layout.local_length, checkpointed=True)
    return plain, kept, without, len(forwards) - without


def test_the_ring_forward_runs_once_per_attention_on_many_ranks() -> None:
    for plain, kept, without, with_checkpoint in run_ranks(on_rank, 2):
        assert torch.equal(plain, kept)
        assert without == with_checkpoint == 2
