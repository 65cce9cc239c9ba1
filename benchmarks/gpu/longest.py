"""The longest row that a decoder trains on with one device, switch by switch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec

from benchmarks.gpu.meter import FakeMeter, Meter, Peak
from benchmarks.gpu.models import Shape
from benchmarks.gpu.steps import Run, Switches, measure
from benchmarks.harness import Report

GIB = 2**30
PLAIN = Switches()
LADDER: dict[str, Switches] = {
    "plain transformers": PLAIN,
    "+ chunked loss": replace(PLAIN, chunked_loss=True),
    "+ our attention, results kept": replace(PLAIN, chunked_loss=True, ours=True),
    "+ MLPs and norms in tiles": replace(PLAIN, chunked_loss=True, ours=True, tiles=16),
    "+ host memory": replace(PLAIN, chunked_loss=True, ours=True, tiles=16, offload=True),
    "+ 2 head groups": replace(PLAIN, chunked_loss=True, ours=True, tiles=16, offload=True, head_groups=2),
}
PEER = "DeepSpeed ALST's switches"
ALST = replace(PLAIN, alst=True, chunked_loss=True, offload=True)


@dataclass(frozen=True)
class Budget:
    """How much a device holds, and how fine the search is."""

    device_bytes: int
    step_tokens: int
    most_tokens: int
    tolerance: float = 1 / 32
    most_tiles: int = 16


def measure_longest(
    report: Report, meter: Meter, shape: Shape, *, lora: bool, layers: int, budget: Budget
) -> None:
    """Search the longest row for every rung of the ladder, and for DeepSpeed's ALST where it is installed."""
    ladder = LADDER | ({PEER: ALST} if find_spec("deepspeed") else {})
    longest: dict[str, int] = {}
    for name, switches in ladder.items():
        limited = replace(switches, tiles=min(switches.tiles, budget.most_tiles))
        run = Run(shape, 0, limited, layers, lora=lora)
        tokens = _longest(run, meter, budget)
        longest[name] = tokens
        peak = _peak(replace(run, tokens=tokens), meter) if tokens else None
        report.rows.append(
            {
                "part": "longest",
                "model": shape.name + (", LoRA" if lora else ""),
                "scheme": name,
                "tokens": tokens,
                "device GiB": peak.device_bytes / GIB if peak else None,
                "host GiB": peak.host_bytes / GIB if peak else None,
            }
        )
    best = max(tokens for name, tokens in longest.items() if name != PEER)
    for name, key in (("plain transformers", "max_tokens_ours_vs_plain"), (PEER, "max_tokens_ours_vs_alst")):
        if name in longest:  # of several models, the one where ours gains least
            ratio = best / max(longest[name], 1)
            report.summary[key] = min(ratio, report.summary.get(key, ratio))


def search(fits: Callable[[int], bool], budget: Budget) -> int:
    """Return the most tokens, a multiple of the step, that fit; 0 if not even one step does."""
    low, high = 0, budget.step_tokens
    while high <= budget.most_tokens and fits(high):
        low, high = high, 2 * high
    while high - low > max(budget.step_tokens, low * budget.tolerance):
        middle = (low + high) // 2 // budget.step_tokens * budget.step_tokens
        if middle <= low:
            break
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def solve(peak_bytes: Callable[[int], int], budget: Budget) -> int:
    """Return the same for a peak that is known exactly, and grows nearly linearly, in fewer evaluations."""
    step = budget.step_tokens
    before, tokens = step, 4 * step
    peak_before = peak_bytes(before)
    for _ in range(8):
        peak = peak_bytes(tokens)
        slope = (peak - peak_before) / (tokens - before)
        room = (budget.device_bytes - peak) / slope
        if 0 <= room < max(step, tokens * budget.tolerance):
            break
        before, peak_before = tokens, peak
        tokens = max(int(tokens + room) // step * step, step)
        if tokens == before:
            break
    return tokens


def _longest(run: Run, meter: Meter, budget: Budget) -> int:
    if not isinstance(meter, FakeMeter):
        return search(lambda tokens: _fits(replace(run, tokens=tokens), meter, budget), budget)

    def peak_bytes(tokens: int) -> int:
        peak = _peak(replace(run, tokens=tokens), meter)
        assert peak is not None
        return peak.device_bytes

    return solve(peak_bytes, budget)


def _fits(run: Run, meter: Meter, budget: Budget) -> bool:
    peak = _peak(run, meter)
    return peak is not None and peak.device_bytes <= budget.device_bytes


def _peak(run: Run, meter: Meter) -> Peak | None:
    """Return the peak with weights, and with gradients and AdamW's two moments (bfloat16) where all train.

    Fake layers are alike: what one more costs is counted with two and three, and added for the others.
    """
    if not isinstance(meter, FakeMeter) or run.layers <= 3:
        return _with_optimizer(measure(run, meter), run)
    two, three = (measure(replace(run, layers=count), meter) for count in (2, 3))
    assert two is not None
    assert three is not None
    more = run.layers - 2
    counts = [a + (b - a) * more for a, b in zip(two[:3], three[:3], strict=True)]
    return _with_optimizer(Peak(*map(int, counts), seconds=two.seconds), run)


def _with_optimizer(peak: Peak | None, run: Run) -> Peak | None:
    if peak is None or run.lora:
        return peak
    return peak._replace(device_bytes=peak.device_bytes + 3 * peak.before_bytes)
