"""What every rank does for a video: check gradients, count bytes sent and bytes alive, take the times."""

# m tokens encoded here, n tokens seated here, D LLM width.

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from benchmarks.counting import Traffic
from benchmarks.harness import interleaved
from benchmarks.live_bytes import LiveBytes
from benchmarks.nodes import Node
from benchmarks.vision.ways import Way, make_ways
from benchmarks.vision.work import Encoder, Video
from longvila.parallel import Groups, make_groups

DEGREES = (2, 2)
log = logging.getLogger(__name__)
Gradients = dict[str, Tensor]
Watch = Callable[[], AbstractContextManager[object]]


class Case(NamedTuple):
    """A video, and the gradients that one process finds for it."""

    video: Video
    wanted: Gradients


class Sample(NamedTuple):
    """One step on one rank."""

    encoder_s: float  # CPU seconds of all threads: tower and projector, forward and backward
    reshard_cpu_s: float
    reshard_s: float  # by the clock, of the slowest rank
    wire_bytes: int  # sent on the loopback by all ranks, re-sharding and barriers; on rank 0


class Counted(NamedTuple):
    """What is the same in every step of a rank."""

    forward_bytes: int  # sent
    backward_bytes: int
    reshard_peak: int  # bytes of tensors alive that the re-sharding has made, results included
    step_peak: int  # bytes of frames and of tensors alive that a step has made; no weights
    kept: float  # norm of the tower's gradient, summed over ranks, ÷ that of one process
    errors: dict[str, float]  # norm of the gradient's error ÷ norm of the gradient, by part


class Measured(NamedTuple):
    """What one rank knows of one way."""

    counted: Counted
    samples: list[Sample]


class Found(NamedTuple):
    """What one rank knows of one video."""

    ways: dict[str, Measured]
    tokens_kept: float  # share of visual tokens that are encoded where they are seated
    idle_wire_bytes: list[int]


@dataclass
class Step:
    """One way on one rank: its two parts, each forward and backward, within what watches them.

    The LLM would run between the re-sharding and its way back, so nothing but the graph is held in between.
    """

    encoder: Encoder
    way: Way
    frames: Tensor
    gradient_nD: Tensor  # of the loss, for the visual tokens seated here

    def run(self, encoding: Watch = nullcontext, resharding: Watch = nullcontext) -> None:
        """Encode, bring tokens to their seats and gradients back, and these through the encoder."""
        self.encoder.zero_grad()
        with encoding():
            features_mD = self.encoder(self.frames).flatten(0, 1)
        leaf = features_mD.detach().requires_grad_()
        with resharding():
            edge = get_gradient_edge(self.way.reshard(leaf))
        with resharding():
            (grad_mD,) = torch.autograd.grad(edge, leaf, self.gradient_nD)
        with encoding():
            features_mD.backward(grad_mD)


class Stopwatch:
    """The times of one step. All ranks begin and end the re-sharding together, and so its way back."""

    def __init__(self, node: Node | None) -> None:
        self._node = node
        self._encoder_s = self._reshard_cpu_s = self._reshard_s = 0.0
        self._wire_bytes = 0

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Add up CPU time."""
        start = time.process_time()
        yield
        self._encoder_s += time.process_time() - start

    @contextmanager
    def resharding(self) -> Iterator[None]:
        """Add up CPU time, time and bytes."""
        sent_bytes = self._sent_bytes()  # before any rank goes on
        dist.barrier()
        cpu_s, start = time.process_time(), time.perf_counter()
        yield
        self._reshard_s += time.perf_counter() - start
        dist.barrier()
        self._reshard_cpu_s += time.process_time() - cpu_s
        self._wire_bytes += self._sent_bytes() - sent_bytes

    def sample(self) -> Sample:
        """Return what was taken."""
        return Sample(self._encoder_s, self._reshard_cpu_s, self._reshard_s, self._wire_bytes)

    def _sent_bytes(self) -> int:
        return self._node.sent_bytes() if self._node is not None else 0


def on_rank(rank: int, node: Node | None, cases: Sequence[Case], repeats: int) -> list[Found]:
    """Measure every video. ``node`` has a loopback of its own, if there is one."""
    groups = make_groups(ulysses_degree=DEGREES[0], ring_degree=DEGREES[1])
    return [_measure(rank, groups, node, case, repeats) for case in cases]


def _measure(rank: int, groups: Groups, node: Node | None, case: Case, repeats: int) -> Found:
    video, traffic = case.video, Traffic()
    if rank == 0:
        log.info("%d frames: checking and counting, %d rounds", video.num_frames, repeats)
    ways, seating = make_ways(video, groups, traffic)
    encoder = Encoder(video.shape)
    gradient_nD = video.gradients[seating.seated(rank)]
    steps = {name: Step(encoder, way, way.frames_of(video), gradient_nD) for name, way in ways.items()}
    counted = {name: _count(step, traffic, case.wanted) for name, step in steps.items()}
    samples = interleaved(
        {name: partial(_timed, step, node) for name, step in steps.items()}, repeats=repeats
    )
    return Found(
        {name: Measured(counted[name], samples[name]) for name in ways},
        seating.share_kept(),
        [_idle_bytes(node) for _ in range(5)],
    )


def _timed(step: Step, node: Node | None) -> Sample:
    watch = Stopwatch(node)
    step.run(watch.encoding, watch.resharding)
    return watch.sample()


def _idle_bytes(node: Node | None) -> int:
    """Return what the barriers around a re-sharding send."""
    watch = Stopwatch(node)
    for _ in ("forward", "backward"):
        with watch.resharding():
            pass
    return watch.sample().wire_bytes


def _count(step: Step, traffic: Traffic, wanted: Gradients) -> Counted:
    """Take what is the same in every step."""
    step.run()
    kept, errors = _compare(step.encoder.gradients(), wanted)
    forward_bytes, backward_bytes = _sent(step, traffic)
    part, whole = LiveBytes(), LiveBytes()
    step.run(resharding=partial(_alive, part))
    whole.count([step.frames])
    step.encoder.zero_grad()
    with whole:
        step.run(resharding=_alive)
    return Counted(forward_bytes, backward_bytes, part.peak, whole.peak, kept, errors)


@contextmanager
def _alive(mode: LiveBytes | None = None) -> Iterator[None]:
    """Count what is alive, and give gloo's threads the time to let go of what they have sent."""
    with mode or nullcontext():
        yield
    dist.barrier()
    time.sleep(0.05)


def _sent(step: Step, traffic: Traffic) -> tuple[int, int]:
    """Return the bytes that this rank sends forward and backward."""
    leaf = step.encoder(step.frames).flatten(0, 1).detach().requires_grad_()
    traffic.reset()
    rows_nD = step.way.reshard(leaf)
    forward_bytes = traffic.near_bytes
    torch.autograd.grad(rows_nD, leaf, step.gradient_nD)
    return forward_bytes, traffic.near_bytes - forward_bytes


def _compare(found: Gradients, wanted: Gradients) -> tuple[float, dict[str, float]]:
    """Add up the gradients of all ranks, and compare them with those of one process."""
    for gradient in found.values():
        dist.all_reduce(gradient)
    errors = {
        name: float((found[name] - gradient).norm() / gradient.norm()) for name, gradient in wanted.items()
    }
    return float(found["tower"].norm() / wanted["tower"].norm()), errors
