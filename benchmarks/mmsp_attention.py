"""Attention over ranks on two nodes: exact bytes over the slow link, time, and gradient errors.

Ours as 2D (Ulysses in a node, ring between nodes), as a ring alone and as Ulysses alone, beside the classic
relay (yunchang, ring-flash-attention; with its forward pass run again in the backward pass: ms-swift),
torch's ring, Ulysses with three all-to-alls, and DeepSpeed's ALST end to end on a tiny Llama.

Two network namespaces stand for two nodes; between them lies a link of --rate-mbit. Namespaces need root and
iproute2. Without them all ranks talk over loopback: bytes are counted as before, times say nothing.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness import Report, arguments, finish
from benchmarks.mmsp.llama import LlamaCase, llama_on_one_process
from benchmarks.mmsp.llama import on_rank as llama_on_rank
from benchmarks.mmsp.measure import Settings, on_rank
from benchmarks.mmsp.results import gather, llama_rows, summarise
from benchmarks.mmsp.schemes import refusals
from benchmarks.mmsp.shapes import Shape, make_tensors, on_one_process
from benchmarks.nodes import Nodes, two_nodes
from benchmarks.peers import alst
from benchmarks.ranks import run_ranks

TIMEOUT_S = 3600.0


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _options(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)  # ranks are forked from this process
    report = Report("mmsp_attention")
    with tempfile.TemporaryDirectory() as folder, two_nodes(options.rate_mbit) as nodes:
        if not options.no_alst:
            alst.prepare(Path(folder))
        report.extra_machine = {"nodes": 2, "ranks": options.ranks, "rate_mbit": options.rate_mbit}
        report.notes += _notes(options, nodes)
        _measure_layers(report, options, nodes)
        if not options.no_alst:
            _measure_llama(report, options, nodes)
    finish(report, options.json)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--ranks", type=int, choices=(4, 8), default=4)
    parser.add_argument("--rate-mbit", type=float, help="of the link (default: 25, quick: 50)")
    parser.add_argument("--repeats", type=int, help="of every scheme at every shape (default: 15, quick: 3)")
    parser.add_argument("--tokens", type=int, help="of the default shapes (default: 1024, quick: 256)")
    parser.add_argument("--lengths", type=int, nargs="+", help="documents of a packed row: one shape only")
    parser.add_argument("--heads", type=int, help="query heads: one shape only")
    parser.add_argument("--kv-heads", type=int, help="KV heads: one shape only")
    parser.add_argument("--no-alst", action="store_true", help="leave out DeepSpeed's ALST end to end")
    options = parser.parse_args(argv)
    options.rate_mbit = options.rate_mbit or (50.0 if options.quick else 25.0)
    options.repeats = options.repeats or (3 if options.quick else 15)
    options.tokens = options.tokens or (256 if options.quick else 1024)
    _check_heads(parser, options.heads or 28, options.kv_heads or 4, options.ranks // 2)
    for length in options.lengths or [options.tokens // 8]:
        if length % (2 * options.ranks):
            parser.error(f"{length} tokens: peers need multiples of {2 * options.ranks} per document")
    return options


def _check_heads(parser: argparse.ArgumentParser, heads: int, kv_heads: int, ranks_per_node: int) -> None:
    if heads % kv_heads:
        parser.error(f"{heads} query heads: they must be a multiple of the {kv_heads} KV heads")
    if heads < ranks_per_node:
        parser.error(f"{heads} query heads: 2D needs {ranks_per_node}, one for each rank of a node")


def _shapes(options: argparse.Namespace) -> list[Shape]:
    n = options.tokens
    if options.lengths or options.heads or options.kv_heads:
        lengths = tuple(options.lengths or [n])
        return [Shape("given", options.heads or 28, options.kv_heads or 4, lengths)]
    return [
        Shape("gqa7", 28, 4, (n,)),
        Shape("gqa2", 8, 4, (n,)),
        Shape("mha", 8, 8, (n,)),
        Shape("packed", 28, 4, (n // 2, n // 8, n // 4, n // 8)),
    ]


def _measure_layers(report: Report, options: argparse.Namespace, nodes: Nodes) -> None:
    shapes = _shapes(options)
    cases = [(shape, on_one_process(shape, make_tensors(shape))) for shape in shapes]
    settings = Settings(
        repeats=options.repeats,
        compute_repeats=max(options.repeats // 3, 3),
        forward_again=not options.quick,
    )
    ranks = run_ranks(
        on_rank, nodes, options.ranks, options.ranks, nodes, cases, settings, timeout_s=TIMEOUT_S
    )
    results = gather(shapes, ranks, nodes)
    report.rows += [result.row(options.rate_mbit) for result in results]
    report.summary |= summarise(results, options.ranks)
    report.notes += [note for shape in shapes for note in refusals(shape, options.ranks)]
    report.notes += [
        f"{shape.name}: {shape.num_heads} query and {shape.num_kv_heads} KV heads, documents of "
        f"{', '.join(map(str, shape.lengths))} tokens"
        for shape in shapes
    ]


def _measure_llama(report: Report, options: argparse.Namespace, nodes: Nodes) -> None:
    heads = 28 - 28 % options.ranks  # ALST needs them divisible
    case = LlamaCase(heads, 4, options.tokens, options.repeats)
    wanted = llama_on_one_process(case)
    ranks = run_ranks(llama_on_rank, nodes, options.ranks, options.ranks, nodes, case, timeout_s=TIMEOUT_S)
    rows, summary = llama_rows(ranks, wanted, nodes)
    report.rows += rows
    report.summary |= summary
    report.notes.append(
        f"tiny Llama: {heads}/4 heads, 2 layers, {options.tokens} tokens, DeepSpeed {alst.version()}; "
        "gradients are not averaged over ranks in the timed runs, which would be the same for both"
    )


def _notes(options: argparse.Namespace, nodes: Nodes) -> list[str]:
    if nodes.have_link:
        link = f"two network namespaces, a veth pair shaped to {options.rate_mbit:g} Mbit/s each way (tbf)"
    else:
        link = f"plain loopback, times say nothing of a slow link; no namespaces: {nodes.problem}"
    return [
        link,
        "one attention layer, forward and backward, bfloat16, head size 64; link MiB: tensors' bytes sent to "
        "the other node, both ways together; wire MiB: what the kernel counted, headers included",
        "link s: what the busier way needs at the link's rate, a lower bound; compute s: the same code with "
        "nothing sent; time s: the slowest rank's, median and quartiles",
        "gradient error: float32 against one process in float64, relative to the largest element",
        "torch ring: rotates K and V by all-to-all or, as it does unless told otherwise, by all-gather (here "
        "counted as gloo relays it); head-tail order, so the same causal work",
    ]


if __name__ == "__main__":
    main()
