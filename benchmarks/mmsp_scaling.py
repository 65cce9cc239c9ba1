"""One process against two that share its work: CPU seconds of attention layers and of a small decoder.

Efficiency is the CPU time of one process divided by that of both (user and system, all threads, waiting
included). The one process is not ours: torch's ``F.scaled_dot_product_attention``, causal, in a single call.
Processes have one thread each and stay alive from run to run, so that starting them is not counted.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.harness import Report, Spread, arguments, finish, interleaved
from benchmarks.mmsp.shapes import Shape, make_tensors
from benchmarks.nodes import Node, Nodes
from benchmarks.ranks import run_ranks
from longvila.parallel import (
    Groups,
    Layout,
    chunked_cross_entropy,
    make_attend,
    make_groups,
    register_attention,
    shift_labels,
)

HERE = Nodes((Node(None, "lo"), Node(None, "lo")), rate_mbit=0.0, problem="not needed")
TORCH, ALONE, TOGETHER = "torch", (1, 1), ((2, 1), (1, 2))
SIZES = {"short": 1, "medium": 2, "long": 4}
VOCABULARY, LAYERS = 1024, 3
Degrees = tuple[int, int]
log = logging.getLogger(__name__)


class Case(NamedTuple):
    """Work that one process does alone and two do together."""

    part: str  # attention: one layer; decoder: a whole one, with its loss
    size: str
    num_heads: int
    num_kv_heads: int
    num_tokens: int
    dtype: torch.dtype

    @property
    def shape(self) -> Shape:
        """The shape of its attention."""
        return Shape(
            f"{self.num_heads}/{self.num_kv_heads}", self.num_heads, self.num_kv_heads, (self.num_tokens,)
        )

    @property
    def dtype_name(self) -> str:
        """The dtype without its module."""
        return str(self.dtype).removeprefix("torch.")


class System(NamedTuple):
    """One way to do the work. ``run`` returns gradients, which belong at some positions of the whole ones."""

    degrees: Degrees
    run: Callable[[], Mapping[str, Tensor]]
    positions: Tensor | None = None  # none: at all

    @property
    def processes(self) -> int:
        """How many share the work."""
        return self.degrees[0] * self.degrees[1]


class Sample(NamedTuple):
    """One run as one process sees it, barriers included."""

    cpu_s: float
    wall_s: float


class Measured(NamedTuple):
    """What one process knows of one system."""

    degrees: Degrees
    samples: list[Sample]
    error: float


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="of every system at every case")
    parser.add_argument("--tokens", type=int, help="of short rows (default: 8192, quick: 512)")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)  # processes are forked from this one
    tokens = options.tokens or (512 if options.quick else 8192)
    finish(scale(tokens, options.repeats), options.json)


def scale(tokens: int, repeats: int) -> Report:
    """Measure every case; short rows have so many tokens."""
    cases = list(_cases(tokens))
    report = Report("mmsp_scaling", extra_machine={"processes": 2, "threads_per_process": 1})
    for case, *found in zip(
        cases, *run_ranks(on_rank, HERE, 2, cases, repeats, timeout_s=4 * 3600), strict=True
    ):
        _add(report, case, found)
    report.summary = _worst(report) | report.summary
    report.notes += _notes(tokens)
    return report


def _cases(tokens: int) -> Iterator[Case]:
    attention = [("short", 4, 2), ("medium", 4, 2), ("long", 4, 2), ("short", 14, 2), ("medium", 8, 4)]
    for size, num_heads, num_kv_heads in attention:
        for dtype in (torch.bfloat16, torch.float32):
            yield Case("attention", size, num_heads, num_kv_heads, SIZES[size] * tokens, dtype)
    for dtype in (torch.bfloat16, torch.float32):
        yield Case("decoder", "short", 4, 2, tokens, dtype)


def on_rank(rank: int, cases: Sequence[Case], repeats: int) -> list[dict[str, Measured]]:
    """Measure every case on one rank."""
    register_attention()
    groups = {
        degrees: make_groups(ulysses_degree=degrees[0], ring_degree=degrees[1])
        for degrees in (ALONE, *TOGETHER)
    }
    return [_measure(rank, case, groups, repeats) for case in cases]


def _measure(rank: int, case: Case, groups: Mapping[Degrees, Groups], repeats: int) -> dict[str, Measured]:
    if rank == 0:
        log.info("%s, %s heads, %d tokens, %s", case.part, case.shape.name, case.num_tokens, case.dtype_name)
    systems = (_attention if case.part == "attention" else _decoders)(case, groups)
    wanted = systems[TORCH].run()
    errors = {name: _error(system, wanted) for name, system in systems.items()}  # and warms up
    runs = {name: partial(_sample, rank, system) for name, system in systems.items()}
    samples = interleaved(runs, repeats=repeats)
    return {name: Measured(system.degrees, samples[name], errors[name]) for name, system in systems.items()}


def _sample(rank: int, system: System) -> Sample:
    """Run on the ranks that share the work; the others wait."""
    dist.barrier()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    if rank < system.processes:
        system.run()
    dist.barrier()
    return Sample(time.process_time() - cpu_s, time.perf_counter() - wall_s)


def _error(system: System, wanted: Mapping[str, Tensor]) -> float:
    """Return the largest error of any gradient, relative to its largest element."""
    errors = []
    for name, found in system.run().items():
        whole = wanted[name].double()
        mine = whole if system.positions is None else whole[:, :, system.positions]
        errors.append(float((found.double() - mine).abs().max() / whole.abs().max()))
    return max(errors)


def _attention(case: Case, groups: Mapping[Degrees, Groups]) -> dict[str, System]:
    shape = case.shape
    tensors = make_tensors(shape)
    whole = tensors.at(torch.arange(case.num_tokens), case.dtype)
    dout_BHTD = whole.dout.transpose(1, 2).contiguous()

    def alone() -> Mapping[str, Tensor]:
        out = F.scaled_dot_product_attention(*whole[:3], is_causal=True, scale=shape.scale, enable_gqa=True)
        return dict(zip("qkv", torch.autograd.grad(out, whole[:3], dout_BHTD), strict=True))

    def ours(degrees: Degrees) -> System:
        layout = Layout(shape.lengths, *degrees)
        attend = make_attend(layout, groups[degrees])
        positions = torch.from_numpy(layout.positions_of(groups[degrees].sp_rank))
        local = tensors.at(positions, case.dtype)

        def run() -> Mapping[str, Tensor]:
            out = attend(*local[:3], scale=shape.scale)
            return dict(zip("qkv", torch.autograd.grad(out, local[:3], local.dout), strict=True))

        return System(degrees, run, positions)

    return {TORCH: System(ALONE, alone)} | {_name(degrees): ours(degrees) for degrees in (ALONE, *TOGETHER)}


def _decoders(case: Case, groups: Mapping[Degrees, Groups]) -> dict[str, System]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (case.num_tokens,), generator=generator)
    labels = shift_labels(ids, [0, case.num_tokens])

    def system(attention: str, degrees: Degrees) -> System:
        layout = Layout((case.num_tokens,), *degrees)
        model = _make_decoder(case, attention)
        positions = torch.from_numpy(layout.positions_of(groups[degrees].sp_rank))
        given = {"attend": make_attend(layout, groups[degrees])} if attention == "mmsp" else {}

        def run() -> Mapping[str, Tensor]:
            model.zero_grad()
            hidden = model.model(
                input_ids=ids[positions][None], position_ids=positions[None], use_cache=False, **given
            ).last_hidden_state
            loss = chunked_cross_entropy(hidden[0], labels[positions], model.lm_head).loss_sum
            (loss / (case.num_tokens - 1)).backward()
            return _summed(model, groups[degrees])

        return System(degrees, run)

    ours = {_name(degrees): system("mmsp", degrees) for degrees in (ALONE, *TOGETHER)}
    return {TORCH: system("sdpa", ALONE)} | ours


def _make_decoder(case: Case, attention: str) -> LlamaForCausalLM:
    """Build the model; the same weights wherever it is called."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64 * case.num_heads,
        intermediate_size=160 * case.num_heads,
        num_hidden_layers=LAYERS,
        num_attention_heads=case.num_heads,
        num_key_value_heads=case.num_kv_heads,
    )
    config._attn_implementation = attention
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.to(dtype=case.dtype)  # pyright: ignore[reportCallIssue]
    return model.train()


def _summed(model: LlamaForCausalLM, groups: Groups) -> Mapping[str, Tensor]:
    """Return the gradients, added up over the ranks of the row in one message."""
    named = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    if groups.sp_size == 1:
        return named
    flat = groups.sp.all_reduce(torch.cat([grad.flatten() for grad in named.values()]))
    pieces = flat.split([grad.numel() for grad in named.values()])
    return {name: piece.view_as(grad) for piece, (name, grad) in zip(pieces, named.items(), strict=True)}


def _name(degrees: Degrees) -> str:
    return "ours {} × {}".format(*degrees)


class Joined(NamedTuple):
    """One system over the processes that share its work."""

    degrees: Degrees
    cpu: Spread  # of all
    busiest: float  # CPU seconds
    wall: Spread
    error: float
    waiting: float | None  # share of the time for which the other process, waiting, kept its core busy


def _join(ranks: Sequence[Measured]) -> Joined:
    degrees = ranks[0].degrees
    working = [rank.samples for rank in ranks[: degrees[0] * degrees[1]]]
    idle = [rank.samples for rank in ranks[len(working) :]]
    cpu = [[sample.cpu_s for sample in samples] for samples in working]
    return Joined(
        degrees=degrees,
        cpu=Spread.of([sum(each) for each in zip(*cpu, strict=True)]),
        busiest=median(max(each) for each in zip(*cpu, strict=True)),
        wall=Spread.of([sample.wall_s for sample in working[0]]),
        error=max(rank.error for rank in ranks),
        waiting=median(sample.cpu_s / sample.wall_s for sample in idle[0]) if idle else None,
    )


def _add(report: Report, case: Case, ranks: Sequence[Mapping[str, Measured]]) -> None:
    """Put one case into rows and summary."""
    joined = {name: _join([rank[name] for rank in ranks]) for name in ranks[0]}
    base = joined[TORCH]
    for name, found in joined.items():
        processes = math.prod(found.degrees)
        row = {
            "part": case.part,
            "heads": case.shape.name,
            "tokens": case.num_tokens,
            "dtype": case.dtype_name,
            "system": name,
            "processes": processes,
            **found.cpu.row("cpu s"),
            "busiest cpu s": round(found.busiest, 4),
            "cpu efficiency": round(base.cpu.median / found.cpu.median, 4),
            **found.wall.row("wall s"),
            "wall efficiency": round(base.wall.median / found.wall.median / processes, 4),
            "gradient error": found.error,
            "waiting": None if found.waiting is None else round(found.waiting, 5),
        }
        report.rows.append(row)
        if processes == 2:
            report.summary[_key(case, found.degrees)] = row["cpu efficiency"]


def _key(case: Case, degrees: Degrees) -> str:
    heads = f"h{case.num_heads}kv{case.num_kv_heads}"
    where = f"{case.part}_cpu_efficiency_2" if case.part == "decoder" else "cpu_efficiency_2"
    return f"{where}_{heads}_{case.dtype_name}_{case.size}_u{degrees[0]}r{degrees[1]}"


def _worst(report: Report) -> dict[str, float]:
    """Return the numbers that the run is judged by; of the clock, which neighbours disturb, the median."""

    def column(name: str, part: str, processes: int) -> list[float]:
        return [
            row[name]
            for row in report.rows
            if row["part"] == part and row["processes"] == processes and row["system"] != TORCH
        ]

    def error(dtype: str) -> float:
        return max(row["gradient error"] for row in report.rows if row["dtype"] == dtype)

    return {
        "cpu_efficiency_2": min(column("cpu efficiency", "attention", 2)),
        "cpu_efficiency_1": min(column("cpu efficiency", "attention", 1)),
        "decoder_cpu_efficiency_2": min(column("cpu efficiency", "decoder", 2)),
        "wall_efficiency_2": median(column("wall efficiency", "attention", 2)),
        "decoder_wall_efficiency_2": median(column("wall efficiency", "decoder", 2)),
        "waiting_cpu_share": max(row["waiting"] for row in report.rows if row["waiting"] is not None),
        "gradient_error_float32": error("float32"),
        "gradient_error_bfloat16": error("bfloat16"),
    }


def _notes(tokens: int) -> list[str]:
    sizes = ", ".join(f"{size} {times * tokens}" for size, times in SIZES.items())
    return [
        f"tokens: {sizes}; one document, head size 64, one thread per process",
        "cpu s: user and system time of all threads of the processes that share the work, added up, from "
        "barrier to barrier; cpu efficiency: torch's on one process ÷ it; wall efficiency: the same of the "
        "clock, per process",
        "attention: one layer, forward and backward; torch gets heads before tokens, its fastest order",
        f"decoder: {LAYERS} layers of a Llama: forward, chunked loss, backward, and the sum of gradients "
        "over ranks; torch: the same model on sdpa, with the same loss",
        "gradient error: against torch on one process in the same dtype (bfloat16 rounds by itself), "
        "relative to the largest element of a gradient",
        "waiting: the share of a core that a process takes while it only waits for the other",
    ]


if __name__ == "__main__":
    main()
