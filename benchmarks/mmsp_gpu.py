"""One GPU: what splitting attention costs, the longest rows, one rank's share of 5M tokens, groups of heads.

Needs torch and transformers (and peft) only. All ranks of a layout run on the one device, a thread each.
Without a GPU the same code runs on the CPU: attention at small sizes, and memory counted with fake tensors of
the true sizes, which is exact for tensors; of what kernels allocate inside themselves only FlashAttention's
backward pass is added.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from benchmarks.gpu.heads import measure_heads
from benchmarks.gpu.longest import Budget, measure_longest
from benchmarks.gpu.meter import Meter, best_meter
from benchmarks.gpu.models import LLAMA_8B, QWEN2_1_5B, QWEN2_7B, SHAPES, TINY, Shape
from benchmarks.gpu.share import measure_share
from benchmarks.gpu.split import measure_parity, measure_split
from benchmarks.harness import Report, arguments, finish
from longvila.parallel import KERNEL_NAMES

MILLION = 1 << 20
GIB = 2**30


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _options(argv)
    meter = best_meter()
    report = Report("mmsp_gpu")
    report.notes += [
        f"memory: {meter.measures}",
        f"attention runs on {meter.device.type}, block kernel: {options.kernel}",
        f"longest rows: on a device of {options.device_gib:.1f} GiB; where all parameters train, weights, "
        "gradients and AdamW's moments are counted in bfloat16",
    ]
    if meter.device.type == "cpu":
        torch.set_num_threads(1)
        report.notes.append("no GPU: split efficiency is of the CPU's kernel, in CPU seconds")
    for part in options.parts:
        MEASURES[part](report, meter, options)
    finish(report, options.json)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--parts", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--kernel", choices=KERNEL_NAMES, default="auto", help="what computes a block")
    parser.add_argument(
        "--lengths", type=int, nargs="+", help="tokens of the split (GPU: 32k to 512k, CPU: 8k, 32k)"
    )
    parser.add_argument(
        "--repeats", type=int, help="of every scheme of the split (default: 7, quick or CPU: 3)"
    )
    parser.add_argument("--models", nargs="+", choices=sorted(SHAPES), help="for the longest rows")
    parser.add_argument("--tokens", type=int, help="of the shared row (default: 5 million)")
    parser.add_argument("--ranks", type=int, default=8, help="that share it (default: 8)")
    parser.add_argument("--device-gib", type=float, default=_device_gib(), help="size of the device")
    options = parser.parse_args(argv)
    few = options.quick or not torch.cuda.is_available()
    options.repeats = options.repeats or (3 if few else 7)
    return options


def _device_gib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1] / GIB
    return 80e9 / GIB


def _parity(report: Report, meter: Meter, options: argparse.Namespace) -> None:
    tokens = 8192 if meter.device.type == "cuda" else 256
    measure_parity(report, meter.device, tokens=tokens, kernel=options.kernel)


def _split(report: Report, meter: Meter, options: argparse.Namespace) -> None:
    on_gpu = meter.device.type == "cuda"
    if on_gpu:
        lengths = (
            (32 << 10, 128 << 10) if options.quick else (32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10)
        )
    else:
        lengths = (2048,) if options.quick else (8192, 32 << 10)
    given = tuple(options.lengths or lengths)
    measure_split(
        report,
        meter.device,
        lengths=given,
        repeats=options.repeats,
        heads=8 if on_gpu else 4,
        kernel=options.kernel,
    )


def _longest(report: Report, meter: Meter, options: argparse.Namespace) -> None:
    names = options.models or ([TINY.name] if options.quick else [QWEN2_1_5B.name, QWEN2_7B.name])
    budget = Budget(int(options.device_gib * GIB), 4096, 64 * MILLION)
    for name in names:
        shape = SHAPES[name]
        small = Budget(16 << 20, 512, MILLION, tolerance=1 / 8, most_tiles=4)
        lora = shape is QWEN2_7B
        measure_longest(
            report, meter, shape, lora=lora, layers=shape.layers, budget=small if shape is TINY else budget
        )


def _share(report: Report, meter: Meter, options: argparse.Namespace) -> None:
    shape, tokens = _shared_row(options)
    ranks = min(options.ranks, shape.heads)
    measure_share(
        report,
        meter,
        shape,
        tokens=tokens,
        degrees=(ranks, options.ranks // ranks),
        groups=shape.heads // ranks,
    )


def _heads(report: Report, meter: Meter, options: argparse.Namespace) -> None:
    shape, tokens = _shared_row(options)
    ranks = min(options.ranks, shape.heads)
    divisions = [(ranks, 1), (ranks // 2, 2)] if ranks > 1 else [(1, 1)]
    measure_heads(report, meter, shape, tokens=tokens, divisions=divisions)


def _shared_row(options: argparse.Namespace) -> tuple[Shape, int]:
    shape, tokens = (TINY, 16 << 10) if options.quick else (LLAMA_8B, 5 * MILLION)
    return shape, options.tokens or tokens


MEASURES = {
    "parity": _parity,
    "split": _split,
    "longest": _longest,
    "share": _share,
    "heads": _heads,
}


if __name__ == "__main__":
    main()
