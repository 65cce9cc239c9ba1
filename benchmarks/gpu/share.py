"""One rank's share of a very long row: a few layers of an 8B-shaped decoder, the other ranks made up."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.gpu.meter import Meter
from benchmarks.gpu.models import Shape
from benchmarks.gpu.steps import Run, Switches, measure
from benchmarks.harness import Report

GIB = 2**30
BASE = Switches(ours=True, chunked_loss=True)
LADDER: dict[str, Switches] = {
    "no checkpointing": replace(BASE, checkpointing=False),
    "checkpointing, attention twice": replace(BASE, keep=False),
    "checkpointing, attention kept": BASE,
    "+ MLPs and norms in tiles": replace(BASE, tiles=32),
    "+ host memory": replace(BASE, tiles=32, offload=True),
    "+ 4 head groups": replace(BASE, tiles=32, offload=True, head_groups=4),
    "the same, attention twice": replace(BASE, tiles=32, offload=True, head_groups=4, keep=False),
}


def measure_share(
    report: Report, meter: Meter, shape: Shape, *, tokens: int, degrees: tuple[int, int], groups: int
) -> None:
    """Measure the peak with two and with three layers: their difference is what a further layer costs.

    What is reported for the whole model is activations: weights, gradients and optimizer state are sharded
    over the ranks by ZeRO-3 and may wait on the host.
    """
    whole: dict[str, float] = {}
    for name, switches in LADDER.items():
        limited = replace(switches, head_groups=min(switches.head_groups, groups))
        run = Run(shape, tokens, limited, 2, degrees)
        peaks = [measure(replace(run, layers=layers), meter) for layers in (2, 3)]
        row: dict[str, object] = {"part": "share", "model": shape.name, "tokens": tokens, "scheme": name}
        if peaks[0] is None or peaks[1] is None:
            report.rows.append(row | {"device GiB, 2 layers": "does not fit"})
            continue
        two, three = ((peak.device_bytes - peak.before_bytes) / GIB for peak in peaks if peak)
        whole[name] = two + (three - two) * (shape.layers - 2)
        host = (peaks[1].host_bytes - peaks[0].host_bytes) / GIB * shape.layers
        row |= {
            "device GiB, 2 layers": two,
            "device GiB per further layer": three - two,
            f"device GiB, {shape.layers} layers": whole[name],
            f"host GiB, {shape.layers} layers": host,
        }
        if peaks[0].seconds is not None and peaks[1].seconds is not None:
            row["s per layer"] = peaks[1].seconds - peaks[0].seconds
        report.rows.append(row)
    first = "checkpointing, attention twice"
    for name, value in whole.items():
        label = name.strip("+ ").replace(", ", "_").replace(" ", "_")
        report.summary[f"share_device_gib_{label}"] = value
    if first in whole:
        report.summary["share_memory_vs_checkpointing"] = min(whole.values()) / whole[first]
