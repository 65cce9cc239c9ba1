"""What splitting attention into blocks costs: all ranks of a ring against one flash call of the same work."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.gpu.layer import all_ranks, make_layer, seconds, single_call
from benchmarks.harness import Report, Row, Spread, interleaved

RINGS = (2, 4, 8)


def measure_parity(report: Report, device: torch.device, *, tokens: int, kernel: str) -> None:
    """Compare outputs and gradients in bfloat16 with one call; both with float64 on the same inputs.

    In the summary stands the largest error of ours ÷ that of the single call: splitting shall cost none.
    """
    worst = 0.0
    for degrees, heads, kv_heads in (((2, 2), 28, 4), ((1, 4), 8, 8), ((8, 1), 28, 4), ((4, 2), 14, 2)):
        layer = make_layer(tokens, heads, kv_heads, 64, device)
        ours, single = all_ranks(layer, degrees, kernel), single_call(layer, kernel)
        exact = single_call(layer._replace(**{n: x.double() for n, x in layer._asdict().items()}), "auto")
        row: Row = {
            "part": "parity",
            "ulysses × ring": "{} × {}".format(*degrees),
            "heads": f"{heads}/{kv_heads}",
        }
        for name, found, one, wanted in zip(exact._fields, ours, single, exact, strict=True):
            ratio = _error(found, wanted) / _error(one, wanted)
            row[f"{name} error vs one call"] = ratio
            worst = max(worst, ratio)
        report.rows.append(row)
    report.summary["parity_error_vs_one_call"] = worst


def measure_split(
    report: Report, device: torch.device, *, lengths: tuple[int, ...], repeats: int, heads: int, kernel: str
) -> None:
    """Time both, forward and backward, in turns; efficiency is one call's time ÷ that of all ranks."""
    found: dict[int, dict[str, float]] = {}
    for tokens in lengths:
        layer = make_layer(tokens, heads, max(heads // 4, 1), 128 if device.type == "cuda" else 64, device)
        runs = {"one call": partial(seconds, partial(single_call, layer, kernel), device)}
        for ring in RINGS:
            work = partial(all_ranks, layer, (1, ring), kernel)
            runs[f"ring {ring}"] = partial(seconds, work, device)
        for run in runs.values():
            run()  # to warm up
        times = {name: Spread.of(found) for name, found in interleaved(runs, repeats=repeats).items()}
        for name, spread in times.items():
            efficiency = times["one call"].median / spread.median
            report.rows.append(
                {
                    "part": "split",
                    "tokens": tokens,
                    "scheme": name,
                    **spread.row("s"),
                    "efficiency": efficiency,
                }
            )
            if name != "one call":
                found.setdefault(tokens, {})[name] = efficiency
    shown = 32 << 10 if 32 << 10 in found else lengths[0]
    report.summary["block_split_efficiency_32k"] = min(found[shown].values())
    for name in found[shown]:
        lowest = min(efficiencies[name] for efficiencies in found.values())
        report.summary[f"block_split_efficiency_{name.replace(' ', '')}"] = lowest
    if shown != 32 << 10:
        report.notes.append(f"block_split_efficiency_32k: of {shown // 1024}k tokens here")


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted).abs().max())
