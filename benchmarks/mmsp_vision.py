"""Frames over four ranks: each encodes its own and sends visual tokens to their seats, beside other ways.

Beside ours: a tower replicated on every rank, which encodes all frames (ms-swift, verl and others); frames
divided and re-sharded by an all-reduce of the whole sequence (the published MM-SP); frames divided and all
visual tokens gathered on every rank (VeOmni, Megatron). Forward and backward, float32.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch

from benchmarks.harness import Report, Row, Spread, arguments, finish
from benchmarks.nodes import Node, Nodes, two_nodes
from benchmarks.ranks import run_ranks
from benchmarks.vision.measure import DEGREES, Case, Found, Measured, Sample, on_rank
from benchmarks.vision.ways import ALL_GATHER, ALL_REDUCE, OURS, REPLICATED
from benchmarks.vision.work import EncoderShape, Video, on_one_process

MIB = 2**20
RANKS = DEGREES[0] * DEGREES[1]
OF_EVERY_VIDEO = (
    "encoder_time_vs_replicated",
    "exchange_bytes_vs_allreduce",
    "peak_memory_vs_allreduce",
    "gradient_error",
    "allreduce_gradient_kept",
)
QUICK = EncoderShape(image_size=56, width=64, num_layers=3)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, help="of every way with every video (default: 11, quick: 3)")
    parser.add_argument("--frames", type=int, nargs="+", default=[64, 45, 32], help="of every video")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)  # ranks are forked from this process
    shape = QUICK if options.quick else EncoderShape()
    videos = [Video(num_frames, shape) for num_frames in options.frames]
    finish(compare(videos, options.repeats or (3 if options.quick else 11)), options.json)


def compare(videos: Sequence[Video], repeats: int) -> Report:
    """Measure every way with every video."""
    cases = [Case(video, on_one_process(video)[1]) for video in videos]
    with _own_loopback() as (nodes, node):
        by_rank = run_ranks(on_rank, nodes, RANKS, node, cases, repeats, timeout_s=3600)
    report = Report("mmsp_vision", extra_machine={"ranks": RANKS, "threads_per_rank": 1})
    for number, (video, *ranks) in enumerate(zip(videos, *by_rank, strict=True)):
        results = {name: _join(name, ranks) for name in ranks[0].ways}
        report.rows += [result.row(video) for result in results.values()]
        numbers = _summarise(results) | {"allreduce_tokens_kept": ranks[0].tokens_kept}
        if number:
            numbers = {f"{key}_{video.num_frames}_frames": numbers[key] for key in OF_EVERY_VIDEO}
        report.summary |= numbers
    report.notes += _notes(videos[0].shape, nodes)
    return report


@contextmanager
def _own_loopback() -> Iterator[tuple[Nodes, Node | None]]:
    """Give a loopback on which nobody else sends, or, where namespaces cannot be made, the machine's."""
    with two_nodes(rate_mbit=1000.0) as nodes:
        node = Node(nodes.nodes[0].namespace, "lo")
        yield Nodes((node, node), nodes.rate_mbit, nodes.problem), node if nodes.have_link else None


@dataclass(frozen=True)
class Result:
    """One way with one video, over all ranks."""

    name: str
    encoder: Spread  # CPU seconds of the slowest rank
    encoder_sum: Spread
    reshard_cpu: Spread  # of all ranks
    reshard: Spread  # seconds of the slowest rank
    forward_bytes: int  # sent by all ranks
    backward_bytes: int
    most_bytes: int  # sent by one rank
    wire_bytes: float
    reshard_peak: int  # of the fullest rank
    step_peak: int
    kept: float
    errors: dict[str, float]

    @property
    def sent_bytes(self) -> int:
        """Forward and backward."""
        return self.forward_bytes + self.backward_bytes

    def row(self, video: Video) -> Row:
        """Return the columns of the table."""
        return {
            "frames": video.num_frames,
            "tokens": video.num_tokens,
            "way": self.name,
            **self.encoder.row("encoder cpu s"),
            "encoder cpu s, sum": round(self.encoder_sum.median, 4),
            "sent MiB": round(self.sent_bytes / MIB, 4),
            "sent bytes forward": self.forward_bytes,
            "sent bytes backward": self.backward_bytes,
            "most of a rank": self.most_bytes,
            "wire MiB": round(self.wire_bytes / MIB, 3) if self.wire_bytes else None,
            **self.reshard.row("reshard s"),
            "reshard cpu s, sum": round(self.reshard_cpu.median, 4),
            "reshard peak MiB": round(self.reshard_peak / MIB, 4),
            "step peak MiB": round(self.step_peak / MIB, 4),
            "tower gradient kept": self.kept,
            **{f"{part} gradient error": error for part, error in self.errors.items()},
        }


def _join(name: str, ranks: Sequence[Found]) -> Result:
    measured: list[Measured] = [rank.ways[name] for rank in ranks]
    counted = [rank.counted for rank in measured]

    def spread(join: Callable[[list[float]], float], take: Callable[[Sample], float]) -> Spread:
        rounds = zip(*(rank.samples for rank in measured), strict=True)
        return Spread.of([join([take(sample) for sample in each]) for each in rounds])

    wire = median(sample.wire_bytes for sample in measured[0].samples) - median(ranks[0].idle_wire_bytes)
    return Result(
        name=name,
        encoder=spread(max, lambda sample: sample.encoder_s),
        encoder_sum=spread(sum, lambda sample: sample.encoder_s),
        reshard_cpu=spread(sum, lambda sample: sample.reshard_cpu_s),
        reshard=spread(max, lambda sample: sample.reshard_s),
        forward_bytes=sum(each.forward_bytes for each in counted),
        backward_bytes=sum(each.backward_bytes for each in counted),
        most_bytes=max(each.forward_bytes + each.backward_bytes for each in counted),
        wire_bytes=wire,
        reshard_peak=max(each.reshard_peak for each in counted),
        step_peak=max(each.step_peak for each in counted),
        kept=counted[0].kept,
        errors=counted[0].errors,
    )


def _summarise(results: dict[str, Result]) -> dict[str, float]:
    """Return ours ÷ theirs, and what of the gradients arrives."""
    ours, replicated = results[OURS], results[REPLICATED]
    numbers = {
        "encoder_time_vs_replicated": ours.encoder.median / replicated.encoder.median,
        "encoder_sum_vs_replicated": ours.encoder_sum.median / replicated.encoder_sum.median,
        "step_memory_vs_replicated": ours.step_peak / replicated.step_peak,
        "gradient_error": max(ours.errors.values()),
        "gradient_kept": ours.kept,
    }
    for key, name in {"allreduce": ALL_REDUCE, "allgather": ALL_GATHER}.items():
        theirs = results[name]
        numbers |= {
            f"encoder_time_vs_{key}": ours.encoder.median / theirs.encoder.median,
            f"exchange_bytes_vs_{key}": ours.sent_bytes / theirs.sent_bytes,
            f"exchange_time_vs_{key}": ours.reshard.median / theirs.reshard.median,
            f"peak_memory_vs_{key}": ours.reshard_peak / theirs.reshard_peak,
            f"step_memory_vs_{key}": ours.step_peak / theirs.step_peak,
            f"{key}_gradient_kept": theirs.kept,
            f"{key}_gradient_error": max(theirs.errors.values()),
        }
    return numbers


def _notes(shape: EncoderShape, nodes: Nodes) -> list[str]:
    if nodes.problem is None:
        wire = "wire MiB: what a loopback of the ranks' own carried, headers included, barriers taken off"
    else:
        wire = f"no wire MiB, for there is no namespace with a loopback of its own: {nodes.problem}"
    return [
        f"a SigLIP tower of width {shape.width} and {shape.num_layers} layers, the last one not run, and an "
        f"mlp_downsample projector to width {shape.llm_width}: {shape.tokens_per_frame} tokens per frame; "
        "ratios without a number of frames are of the first video",
        "{} × {} ranks (ulysses × ring): zigzag order, so most tokens change rank".format(*DEGREES),
        "encoder cpu s: tower and projector, forward and backward, all threads of the slowest rank",
        "sent: tensors' bytes, all ranks, forward and backward, as rings send them: for an all-reduce "
        "2 · (P - 1) / P of the buffer per rank, for an all-gather and a reduce-scatter P - 1 shares (gloo's "
        "reduce-scatter sends twice as much); the all-reduce sends no gradients",
        wire,
        "reshard peak: bytes of tensors that the re-sharding has made and that are alive at once, on the "
        "fullest rank; step peak: frames and all that a step makes, weights not counted; buffers inside gloo "
        "are not seen",
        "tower gradient kept: norm of the gradient summed over ranks ÷ that of one process, for random "
        "gradients of visual tokens; gradient error: norm of the difference ÷ norm",
    ]


if __name__ == "__main__":
    main()
