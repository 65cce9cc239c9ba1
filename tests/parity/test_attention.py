"""Attention over many ranks against attention written out on one process: outputs and gradients, float64."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from torch import Tensor

from longvila.parallel import Layout, make_attend, make_groups
from longvila.parallel.heads import HeadPlan
from tests.distributed import run_ranks
from tests.parity import reference

TOLERANCE = 1e-10
DEGREES = [(u, r) for u in (1, 2, 4, 8) for r in (1, 2, 4, 8) if u * r <= 8]


@dataclass(frozen=True)
class Case:
    """One attention: documents, heads, and what else it can do."""

    lengths: tuple[int, ...]
    heads: int = 4
    kv_heads: int = 4
    head_size: int = 8
    window: int | None = None
    sinks: bool = False
    head_groups: int = 0
    keep_keys: bool = False
    name: str = field(default="", compare=False)


CASES = [
    Case((64,), name="one document"),
    Case((61,), name="odd length"),
    Case((3,), name="shorter than the ranks"),
    Case((), name="nothing but padding"),
    Case((61,), heads=8, kv_heads=2, name="grouped queries"),
    Case((70,), heads=7, kv_heads=1, name="uneven heads"),
    Case((35,), heads=6, kv_heads=3, name="ragged groups of heads"),
    Case((1, 40, 2, 17, 9, 1, 1, 30), heads=4, kv_heads=2, name="packed"),
    Case((100, 1, 100), heads=4, kv_heads=2, name="packed, long"),
    Case((5,) * 20, heads=4, kv_heads=2, name="many short documents"),
    Case((90, 13), heads=4, kv_heads=2, window=7, name="window"),
    Case((90, 13), heads=4, kv_heads=2, window=40, name="wide window"),
    Case((33, 9), heads=4, kv_heads=2, window=1, name="window of one"),
    Case((50, 31), heads=4, kv_heads=2, sinks=True, name="sinks"),
    Case((61, 30), heads=28, kv_heads=4, name="28 heads"),
    Case((61, 30), heads=14, kv_heads=2, window=20, sinks=True, name="14 heads, window and sinks"),
    Case((50, 31), heads=8, kv_heads=4, sinks=True, head_groups=2, name="heads in groups"),
    Case((50, 31), heads=12, kv_heads=3, head_groups=3, name="heads in uneven groups"),
    Case((50, 31), heads=28, kv_heads=4, sinks=True, head_groups=3, name="groups that share KV heads"),
    Case((50, 31), heads=10, kv_heads=2, head_groups=4, name="groups that share some KV heads"),
    Case((61, 30), heads=4, kv_heads=2, keep_keys=True, name="keys kept"),
    Case(
        (90, 13, 5),
        heads=8,
        kv_heads=2,
        window=40,
        sinks=True,
        head_groups=2,
        keep_keys=True,
        name="keys kept, and all else",
    ),
]


@dataclass(frozen=True)
class Result:
    """An output and the gradients of all inputs."""

    out: Tensor
    dq: Tensor
    dk: Tensor
    dv: Tensor
    dsinks: Tensor | None


def make_inputs(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Return q_HTD, k_HTD, v_HTD, the sinks, and the gradient of out_HTD."""
    random = partial(torch.randn, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    total = sum(case.lengths)
    q, dout = random(case.heads, total, case.head_size), random(case.heads, total, case.head_size)
    k, v = random(case.kv_heads, total, case.head_size), random(case.kv_heads, total, case.head_size)
    return 2 * q, 2 * k, v, random(case.heads) if case.sinks else None, dout


def expected(case: Case) -> Result:
    """The case on one process, written out."""
    q, k, v, sinks, dout = make_inputs(case)
    leaves = [x.requires_grad_() for x in (q, k, v, sinks) if x is not None]
    mask = reference.document_mask(case.lengths, case.window)
    out = reference.attention(q, k, v, mask, scale=case.head_size**-0.5, sinks=sinks)
    dq, dk, dv, *dsinks = torch.autograd.grad(out, leaves, dout)
    return Result(out.detach(), dq, dk, dv, dsinks[0] if dsinks else None)


def attend_on_rank(_rank: int, ulysses_degree: int, ring_degree: int, cases: list[Case]) -> list[Result]:
    """All cases on this rank: its own tokens only."""
    groups = make_groups(ulysses_degree=ulysses_degree, ring_degree=ring_degree)
    results = []
    for case in cases:
        layout = Layout(case.lengths, ulysses_degree, ring_degree)
        positions = torch.from_numpy(layout.positions_of(groups.sp_rank))
        q, k, v, sinks, dout = make_inputs(case)
        padding = (0, 0, 0, layout.padded_length - layout.num_tokens)
        local = [torch.nn.functional.pad(x, padding)[:, positions] for x in (q, k, v, dout)]
        leaves = [x.requires_grad_() for x in (*local[:3], sinks) if x is not None]
        attend = make_attend(layout, groups, head_groups=case.head_groups, keep_keys=case.keep_keys)
        out = attend(
            *(x[None] for x in leaves[:3]), scale=case.head_size**-0.5, window=case.window, sinks=sinks
        )
        dq, dk, dv, *dsinks = torch.autograd.grad(out, leaves, local[3].transpose(0, 1)[None])
        results.append(Result(out[0].transpose(0, 1).detach(), dq, dk, dv, dsinks[0] if dsinks else None))
    return results


def joined(case: Case, ulysses_degree: int, ring_degree: int, parts: list[Result]) -> Result:
    """Put the ranks' tokens back into the order of the row, and cut the padding off."""
    layout = Layout(case.lengths, ulysses_degree, ring_degree)
    order = torch.cat([torch.from_numpy(layout.positions_of(rank)) for rank in range(len(parts))]).argsort()
    tensors = [
        torch.cat([getattr(part, name) for part in parts], dim=1)[:, order][:, : layout.num_tokens]
        for name in ("out", "dq", "dk", "dv")
    ]
    dsinks = [part.dsinks for part in parts if part.dsinks is not None]
    return Result(*tensors, dsinks=torch.stack(dsinks).sum(0) if dsinks else None)


def assert_equal(found: Result, wanted: Result, case: Case) -> None:
    for name in ("out", "dq", "dk", "dv", "dsinks"):
        left, right = getattr(found, name), getattr(wanted, name)
        if right is not None:
            torch.testing.assert_close(
                left, right, rtol=0, atol=TOLERANCE, msg=lambda m, n=name: f"{case.name}, {n}: {m}"
            )


@pytest.mark.parametrize(("ulysses_degree", "ring_degree"), DEGREES)
def test_outputs_and_gradients_equal_one_process(ulysses_degree: int, ring_degree: int) -> None:
    cases = [
        case
        for case in CASES
        if ulysses_degree <= case.heads
        and case.head_groups <= HeadPlan(case.heads, case.kv_heads, ulysses_degree).most_groups
    ]
    results = run_ranks(attend_on_rank, ulysses_degree * ring_degree, ulysses_degree, ring_degree, cases)
    for i, case in enumerate(cases):
        found = joined(case, ulysses_degree, ring_degree, [result[i] for result in results])
        assert_equal(found, expected(case), case)


def test_one_process_needs_no_torch_distributed() -> None:
    for case, result in zip(CASES, attend_on_rank(0, 1, 1, CASES), strict=True):
        assert_equal(joined(case, 1, 1, [result]), expected(case), case)
