"""What every rank does for a shape: check the gradients, count the bytes, take the times."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as dist

from benchmarks.harness import interleaved
from benchmarks.mmsp.schemes import Attend, Scheme, World, make_schemes
from benchmarks.mmsp.shapes import Shape, Tensors, Wanted, largest_gradient_error, make_tensors
from benchmarks.nodes import Nodes

log = logging.getLogger(__name__)
SILENT = "compute only: "


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    repeats: int
    compute_repeats: int
    forward_again: bool = True
    dtype: torch.dtype = torch.bfloat16


class Sample(NamedTuple):
    """One forward and backward of one layer, on one rank."""

    seconds: float
    wire_bytes: int  # sent by this rank's node, if it leads the node


class Measured(NamedTuple):
    """What one rank knows of one scheme."""

    name: str
    degrees: tuple[int, int]
    node: int
    far_bytes: int
    near_bytes: int
    messages: int
    error: float
    samples: list[Sample]
    compute_seconds: list[float]


class Timed(NamedTuple):
    """What one rank knows of one shape."""

    schemes: list[Measured]
    idle_wire_bytes: list[int]


def on_rank(
    rank: int, num_ranks: int, nodes: Nodes, cases: list[tuple[Shape, Wanted]], settings: Settings
) -> list[Timed]:
    """Measure every shape."""
    world = World(rank, num_ranks, nodes)
    return [_measure_shape(world, shape, wanted, settings) for shape, wanted in cases]


def _measure_shape(world: World, shape: Shape, wanted: Wanted, settings: Settings) -> Timed:
    schemes = make_schemes(shape, world, forward_again=settings.forward_again)
    tensors = make_tensors(shape)
    if world.rank == 0:
        log.info("%s: %d schemes, checking and counting", shape.name, len(schemes))
    counts = [_count(world, scheme, tensors, wanted, settings.dtype) for scheme in schemes]
    runs = {scheme.name: _runner(world, scheme.attend, scheme, tensors, settings) for scheme in schemes}
    silent = {
        SILENT + scheme.name: _runner(world, scheme.silent, scheme, tensors, settings)
        for scheme in schemes
        if scheme.silent is not None
    }
    if world.rank == 0:
        log.info("%s: %d rounds", shape.name, settings.repeats)
    found = interleaved(runs, repeats=settings.repeats)
    computed = interleaved(silent, repeats=settings.compute_repeats + 1)  # the first is to warm up
    idle = [timed(world, lambda: None).wire_bytes for _ in range(5)]
    measured = [
        Measured(
            *(scheme.name, scheme.degrees, world.node, *count, found[scheme.name]),
            [sample.seconds for sample in computed.get(SILENT + scheme.name, [])[1:]],
        )
        for scheme, count in zip(schemes, counts, strict=True)
    ]
    return Timed(measured, idle)


def _count(
    world: World, scheme: Scheme, tensors: Tensors, wanted: Wanted, dtype: torch.dtype
) -> tuple[int, int, int, float]:
    """Return the bytes to the other node and to the own, the messages, and the error in float32."""
    exact = tensors.at(scheme.positions, torch.float32)
    out = scheme.attend(*exact[:3])
    error = largest_gradient_error(torch.autograd.grad(out, exact[:3], exact.dout), wanted, scheme.positions)
    world.traffic.reset()
    with scheme.counter():
        _forward_backward(scheme.attend, tensors.at(scheme.positions, dtype))
    return world.traffic.far_bytes, world.traffic.near_bytes, world.traffic.messages, error


def _runner(
    world: World, attend: Attend | None, scheme: Scheme, tensors: Tensors, settings: Settings
) -> Callable[[], Sample]:
    assert attend is not None
    local = tensors.at(scheme.positions, settings.dtype)
    return partial(timed, world, partial(_forward_backward, attend, local))


def _forward_backward(attend: Attend, local: Tensors) -> None:
    out = attend(*local[:3])
    torch.autograd.grad(out, local[:3], local.dout)


def timed(world: World, run: Callable[[], object]) -> Sample:
    """Run once on all ranks together. The bytes include those of the two barriers."""
    node = world.nodes.nodes[world.node]
    reads = world.leads_node and world.nodes.have_link
    before = node.sent_bytes() if reads else 0
    dist.barrier()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    dist.barrier()
    return Sample(seconds, node.sent_bytes() - before if reads else 0)
