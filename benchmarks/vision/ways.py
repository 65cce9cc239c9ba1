"""The ways to bring visual tokens to the ranks that own their seats."""

# m tokens encoded here, n tokens seated here, M visual tokens of all frames, D LLM width.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.counting import Traffic, counted
from benchmarks.vision.all_gather import AllGather
from benchmarks.vision.all_reduce import AllReduce, take
from benchmarks.vision.work import Video
from longvila.parallel import Groups, Plan, make_exchange

OURS, REPLICATED, ALL_REDUCE, ALL_GATHER = "ours", "replicated", "all-reduce", "all-gather"


@dataclass(frozen=True)
class Way:
    """One way, on one rank: the frames that it encodes, and features_mD of these -> rows_nD seated here."""

    frames: np.ndarray
    reshard: Callable[[Tensor], Tensor]

    def frames_of(self, video: Video) -> Tensor:
        """Return the frames that it encodes here."""
        return video.frames[torch.from_numpy(self.frames)]


@dataclass(frozen=True)
class Seating:
    """Who encodes each visual token and who owns its seat."""

    seats_M: Tensor
    encoders_M: Tensor
    owners_M: Tensor
    places_M: Tensor  # on the owner

    @classmethod
    def of(cls, video: Video, plan: Plan) -> Seating:
        """Follow a plan."""
        seats_M = video.seats
        owners, places = plan.layout.owners(seats_M.numpy())
        shares = np.diff(plan.bounds) * video.shape.tokens_per_frame
        return cls(
            seats_M,
            torch.arange(len(shares)).repeat_interleave(torch.from_numpy(shares)),
            *(torch.from_numpy(x) for x in (owners, places)),
        )

    def seated(self, rank: int) -> Tensor:
        """Return the visual tokens seated on a rank, in the order of its seats."""
        mine = torch.nonzero(self.owners_M == rank).squeeze(1)
        return mine[self.places_M[mine].argsort()]

    def encoded(self, rank: int) -> Tensor:
        """Return the visual tokens encoded by a rank."""
        return torch.nonzero(self.encoders_M == rank).squeeze(1)

    def share_kept(self) -> float:
        """Return the share of tokens that are encoded where they are seated."""
        return float((self.encoders_M == self.owners_M).double().mean())


def make_ways(video: Video, groups: Groups, traffic: Traffic) -> tuple[dict[str, Way], Seating]:
    """Return all ways, and who holds what. What is sent is counted in ``traffic``.

    The world must be the ranks of one sequence.
    """
    plan = video.plan(groups.ulysses_degree, groups.ring_degree)
    seating, rank = Seating.of(video, plan), groups.sp_rank
    tokens_n, own = seating.seated(rank), plan.frames_of(rank)
    largest = int(seating.encoders_M.bincount(minlength=groups.sp_size).max())
    inside_M = torch.cat([torch.arange(len(seating.encoded(i))) for i in range(groups.sp_size)])
    padded_M = seating.encoders_M * largest + inside_M
    all_reduce = AllReduce(
        num_positions=plan.layout.padded_length,
        written_m=seating.seats_M[seating.encoded(rank)],
        held_t=torch.from_numpy(plan.layout.positions_of(rank)),
        seats_n=seating.places_M[tokens_n],
        traffic=traffic,
    )
    ways = {
        OURS: Way(own, make_exchange(plan, counted(groups, lambda _: 0, traffic))),
        REPLICATED: Way(np.arange(video.num_frames), partial(take, rows=tokens_n)),
        ALL_REDUCE: Way(own, all_reduce),
        ALL_GATHER: Way(own, AllGather(largest, padded_M[tokens_n], traffic)),
    }
    return ways, seating
