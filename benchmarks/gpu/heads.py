"""What attention alone takes, forward and backward, with its heads in so many groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.made_up import made_up_groups
from benchmarks.gpu.meter import Meter, Peak
from benchmarks.gpu.models import Shape
from benchmarks.harness import Report
from longvila.parallel import HostMemory, Layout, make_attend

GIB = 2**30


class Inputs(NamedTuple):
    """Queries, keys and values of one rank's tokens, [1, H, t, D] and [1, h, t, D]."""

    q: Tensor
    k: Tensor
    v: Tensor


def measure_heads(
    report: Report,
    meter: Meter,
    shape: Shape,
    *,
    tokens: int,
    divisions: Sequence[tuple[int, int]],
) -> None:
    """Measure with every number of groups that the (ulysses, ring) divisions leave heads for."""
    for ulysses, ring in divisions:
        peaks: dict[int, float] = {}
        for groups in (1, 2, 4, 8):
            if groups > shape.heads // ulysses:
                continue
            row: dict[str, object] = {"part": "heads", "model": shape.name, "tokens": tokens}
            row |= {"degrees": f"{ulysses}x{ring}", "head groups": groups}
            peak = attention_peak(meter, shape, tokens, (ulysses, ring), head_groups=groups)
            if peak is None:
                report.rows.append(row | {"device GiB": "does not fit"})
                continue
            peaks[groups] = (peak.device_bytes - peak.before_bytes) / GIB
            row["device GiB"] = peaks[groups]
            if peak.seconds is not None:
                row["s"] = peak.seconds
            report.rows.append(row)
        if 1 in peaks:
            best = min(peaks.values())
            report.summary[f"attention_memory_head_groups_ring{ring}"] = best / peaks[1]


def attention_peak(
    meter: Meter, shape: Shape, tokens: int, degrees: tuple[int, int], *, head_groups: int
) -> Peak | None:
    """Run one rank's attention, forward and backward, under a meter; the other ranks are made up."""
    layout = Layout((tokens,), *degrees)

    def prepare() -> Inputs:
        sizes = [(1, count, layout.local_length, shape.head_size) for count in _counts(shape)]
        drawn = (torch.randn(size, dtype=torch.bfloat16, device=meter.device) for size in sizes)
        return Inputs(*(x.requires_grad_() for x in drawn))

    def work(inputs: Inputs, _: HostMemory) -> None:
        attend = make_attend(layout, made_up_groups(*degrees), head_groups=head_groups)
        out = attend(*inputs, scale=shape.head_size**-0.5)
        out.backward(torch.ones_like(out))

    return meter.run(prepare, work)


def _counts(shape: Shape) -> tuple[int, int, int]:
    return shape.heads, shape.kv_heads, shape.kv_heads
