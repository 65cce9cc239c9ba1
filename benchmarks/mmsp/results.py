"""From what the ranks measured to rows for people and numbers for machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from torch import Tensor

from benchmarks.harness import Row, Spread
from benchmarks.mmsp.llama import LlamaMeasured
from benchmarks.mmsp.measure import Measured, Sample, Timed
from benchmarks.mmsp.shapes import HEAD_SIZE, Shape
from benchmarks.nodes import Nodes
from longvila.parallel import choose_degrees

MIB = 2**20
OURS, KEPT, RELAY, RING = "ours 2d", "ours 2d, keys kept", "relay 2d", "relay ring"


@dataclass(frozen=True)
class Result:
    """One scheme at one shape, over all ranks."""

    shape: Shape
    name: str
    degrees: tuple[int, int]
    far_bytes: int
    busiest_way_bytes: int  # the larger of the link's two directions
    near_bytes: int
    messages: int
    wire_bytes: float | None
    time: Spread
    compute: Spread | None
    error: float

    @property
    def is_ours(self) -> bool:
        """Whether it is ours or a peer's."""
        return self.name.startswith("ours")

    def row(self, rate_mbit: float) -> Row:
        """Return the columns of the table."""
        wire = self.wire_bytes
        return {
            "shape": self.shape.name,
            "scheme": self.name,
            "ulysses × ring": "{} × {}".format(*self.degrees),
            "link MiB": self.far_bytes / MIB,
            "link bytes": self.far_bytes,
            "wire MiB": None if wire is None else round(wire / MIB, 3),
            "overhead": round(wire / self.far_bytes - 1, 3) if wire and self.far_bytes else None,
            "node MiB": self.near_bytes / MIB,
            "messages": self.messages,
            "link s": round(link_seconds(self.busiest_way_bytes, rate_mbit), 4),
            **({} if self.compute is None else self.compute.row("compute s")),
            **self.time.row("time s"),
            "gradient error": self.error,
        }


def link_seconds(one_way_bytes: float, rate_mbit: float) -> float:
    """Return how long the link needs at its rate for what goes one way."""
    return one_way_bytes * 8 / (rate_mbit * 1e6)


def gather(shapes: Sequence[Shape], ranks: Sequence[Sequence[Timed]], nodes: Nodes) -> list[Result]:
    """Join the ranks' measurements, shape by shape and scheme by scheme."""
    results = []
    for i, shape in enumerate(shapes):
        timed = [rank[i] for rank in ranks]
        idle = sum(median(rank.idle_wire_bytes) for rank in timed)
        for found in zip(*(rank.schemes for rank in timed), strict=True):
            results.append(_join(shape, found, idle, nodes))
    return results


def _join(shape: Shape, found: Sequence[Measured], idle_bytes: float, nodes: Nodes) -> Result:
    one_way = [sum(rank.far_bytes for rank in found if rank.node == i) for i in range(len(nodes.nodes))]
    computed = [rank.compute_seconds for rank in found]
    return Result(
        shape=shape,
        name=found[0].name,
        degrees=found[0].degrees,
        far_bytes=sum(one_way),
        busiest_way_bytes=max(one_way),
        near_bytes=sum(rank.near_bytes for rank in found),
        messages=sum(rank.messages for rank in found),
        wire_bytes=wire_bytes([rank.samples for rank in found]) - idle_bytes if nodes.have_link else None,
        time=Spread.of(slowest([rank.samples for rank in found])),
        compute=Spread.of([max(each) for each in zip(*computed, strict=True)]) if computed[0] else None,
        error=max(rank.error for rank in found),
    )


def slowest(ranks: Iterable[Sequence[Sample]]) -> list[float]:
    """Return for every repetition the time of the slowest rank."""
    return [max(sample.seconds for sample in each) for each in zip(*ranks, strict=True)]


def wire_bytes(ranks: Iterable[Sequence[Sample]]) -> float:
    """Return the median over repetitions of what both nodes sent."""
    return median(sum(sample.wire_bytes for sample in each) for each in zip(*ranks, strict=True))


def summarise(results: Sequence[Result], num_ranks: int) -> dict[str, float]:
    """Return the numbers that the first shape is judged by, and those of the others.

    Ours is the pair of degrees that ``choose_degrees`` prefers for two nodes and the shape's heads.
    """
    shapes = list(dict.fromkeys(result.shape for result in results))
    summary: dict[str, float] = {}
    for number, shape in enumerate(shapes):
        numbers = _of_one_shape(_of_shape(results, shape), shape, num_ranks)
        suffix = f"_{shape.name.replace(' ', '_')}" if number else ""
        summary |= {f"{key}{suffix}": value for key, value in numbers.items()}
    return summary | {"max_grad_error": max(result.error for result in results if result.is_ours)}


def _of_one_shape(found: dict[str, Result], shape: Shape, num_ranks: int) -> dict[str, float]:
    peers = [result for result in found.values() if not result.is_ours]
    fewest, fastest = min(peer.far_bytes for peer in peers), min(map(_median_time, peers))
    ours, kept = found[_planned(shape, num_ranks)], found[KEPT]
    numbers = {
        "bytes_vs_best_peer": ours.far_bytes / fewest,
        "time_vs_ring": _median_time(ours) / _median_time(found[RING]),
        "time_vs_best_peer": _median_time(ours) / fastest,
        "keys_kept_bytes_vs_best_peer": kept.far_bytes / fewest,
        "keys_kept_time_vs_best_peer": _median_time(kept) / fastest,
    }
    if RELAY in found:
        numbers["bytes_vs_relay_2d"] = found[OURS].far_bytes / found[RELAY].far_bytes
        numbers["time_vs_relay_2d"] = _median_time(ours) / _median_time(found[RELAY])
    if ours.compute is not None:
        numbers["time_vs_compute_only"] = _median_time(ours) / ours.compute.median
    return numbers


def _planned(shape: Shape, num_ranks: int) -> str:
    """Return which of ours the planner takes where the link between the nodes is what counts."""
    names = {(num_ranks // 2, 2): OURS, (1, num_ranks): "ours ring", (num_ranks, 1): "ours ulysses"}
    best = choose_degrees(
        tokens=shape.num_tokens,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_size=HEAD_SIZE,
        nodes=2,
        ranks_per_node=num_ranks // 2,
        node_speedup=100.0,
        degrees=[pair for pair in names if pair[0] <= shape.num_heads],
    )[0]
    return names[best.ulysses_degree, best.ring_degree]


def _of_shape(results: Sequence[Result], shape: Shape) -> dict[str, Result]:
    return {result.name: result for result in results if result.shape == shape}


def _median_time(result: Result) -> float:
    return result.time.median


def llama_rows(
    ranks: Sequence[LlamaMeasured], wanted: tuple[float, dict[str, Tensor]], nodes: Nodes
) -> tuple[list[Row], dict[str, float]]:
    """Return the rows and the summary of the tiny Llama, end to end."""
    loss, gradients = wanted
    rows, times, errors = [], {}, {}
    for name in ranks[0].losses:
        samples = [rank.samples[name] for rank in ranks]
        times[name] = Spread.of(slowest(samples))
        errors[name] = max(
            float((sum(rank.gradients[name][key] for rank in ranks) - grad).abs().max() / grad.abs().max())
            for key, grad in gradients.items()
        )
        rows.append(
            {
                "shape": "tiny Llama, end to end",
                "scheme": {"ours": OURS, "alst": "DeepSpeed ALST"}[name],
                "wire MiB": round(wire_bytes(samples) / MIB, 3) if nodes.have_link else None,
                **times[name].row("time s"),
                "gradient error": errors[name],
                "loss error": abs(sum(rank.losses[name] for rank in ranks) - loss) / loss,
            }
        )
    return rows, {
        "alst_time_ratio": times["ours"].median / times["alst"].median,
        "llama_grad_error": errors["ours"],
        "alst_grad_error": errors["alst"],
        "llama_loss_difference": max(row["loss error"] for row in rows),
    }
