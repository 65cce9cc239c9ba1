"""Every way brings the same visual tokens to the same seats; what it sends, and what gradient it loses."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from benchmarks.counting import Traffic
from benchmarks.mmsp_vision import OF_EVERY_VIDEO, compare
from benchmarks.vision.ways import ALL_GATHER, ALL_REDUCE, OURS, REPLICATED, Seating, make_ways
from benchmarks.vision.work import Encoder, EncoderShape, Video, on_one_process
from longvila.parallel import make_groups
from tests.distributed import run_ranks

SHAPE = EncoderShape(image_size=56, width=16, num_layers=3, llm_width=8)
VIDEO = Video(6, SHAPE)  # 24 visual tokens; frames 0 and 1, 2, 3 and 4, and 5 on the four ranks
TOKEN_BYTES = 8 * 4
TOLERANCE = 1e-5


class Seen(NamedTuple):
    rows: Tensor
    gradients: dict[str, Tensor]
    sent_bytes: int


def all_ways_on_rank(rank: int, degrees: tuple[int, int]) -> dict[str, Seen]:
    traffic = Traffic()
    groups = make_groups(ulysses_degree=degrees[0], ring_degree=degrees[1])
    ways, seating = make_ways(VIDEO, groups, traffic)
    seen = {}
    for name, way in ways.items():
        encoder = Encoder(SHAPE)
        traffic.reset()
        rows = way.reshard(encoder(way.frames_of(VIDEO)).flatten(0, 1))
        rows.backward(VIDEO.gradients[seating.seated(rank)])
        seen[name] = Seen(rows.detach(), encoder.gradients(), traffic.near_bytes)
    return seen


def kept_gradients(seating: Seating) -> dict[str, Tensor]:
    """What one process finds if only tokens that stay on their rank get a gradient."""
    encoder = Encoder(SHAPE)
    stays_M = seating.encoders_M == seating.owners_M
    encoder(VIDEO.frames).flatten(0, 1).backward(VIDEO.gradients * stays_M[:, None])
    return encoder.gradients()


def largest_error(ranks: list[dict[str, Seen]], name: str, wanted: dict[str, Tensor]) -> float:
    """Of the gradients summed over ranks, relative to the norm."""
    found = {part: torch.stack([rank[name].gradients[part] for rank in ranks]).sum(0) for part in wanted}
    return max(float((found[part] - wanted[part]).norm() / wanted[part].norm()) for part in wanted)


@pytest.mark.parametrize("degrees", [(2, 2), (1, 4)])
def test_all_ways_agree_and_the_all_reduce_loses_gradients(degrees: tuple[int, int]) -> None:
    rows_MD, wanted = on_one_process(VIDEO)
    ranks = run_ranks(all_ways_on_rank, 4, degrees)
    seating = Seating.of(VIDEO, VIDEO.plan(*degrees))
    for rank, seen in enumerate(ranks):
        for name, each in seen.items():
            assert torch.allclose(each.rows, rows_MD[seating.seated(rank)], atol=1e-6), (rank, name)
    for name in (OURS, REPLICATED, ALL_GATHER):
        assert largest_error(ranks, name, wanted) < TOLERANCE, name
    assert 0 < seating.share_kept() < 1
    assert largest_error(ranks, ALL_REDUCE, kept_gradients(seating)) < TOLERANCE
    assert largest_error(ranks, ALL_REDUCE, wanted) > 0.1
    if degrees == (2, 2):
        check_bytes(ranks)


def check_bytes(ranks: list[dict[str, Seen]]) -> None:
    """176 positions in four chunks: frame 0 sits on rank 0, all others on rank 2; half of them move."""
    sent = {name: sum(rank[name].sent_bytes for rank in ranks) for name in ranks[0]}
    assert sent == {
        OURS: 2 * 12 * TOKEN_BYTES,  # there and back
        REPLICATED: 0,
        ALL_REDUCE: 2 * 3 * 176 * TOKEN_BYTES,  # there only
        ALL_GATHER: 2 * 4 * 3 * 8 * TOKEN_BYTES,  # shares are padded to two frames
    }


def test_the_benchmark_has_its_keys() -> None:
    """Of a video with fewer frames than ranks too."""
    report = compare([VIDEO, Video(3, SHAPE)], repeats=1)
    summary = report.summary
    assert {"encoder_time_vs_replicated", "peak_memory_vs_allgather", "allreduce_tokens_kept"} <= set(summary)
    assert {f"{key}{suffix}" for key in OF_EVERY_VIDEO for suffix in ("", "_3_frames")} <= set(summary)
    assert summary["exchange_bytes_vs_allreduce"] == pytest.approx(2 * 12 / (2 * 3 * 176))
    assert summary["peak_memory_vs_allreduce"] < 1
    assert summary["gradient_error_3_frames"] < TOLERANCE
    assert summary["gradient_error"] < TOLERANCE < summary["allreduce_gradient_error"]
    assert summary["allreduce_tokens_kept"] == 0.5
    assert len(report.rows) == 8
