"""Which tokens the published MM-SP (NVlabs/VILA) gives to whom, and what its ring makes of that.

Its index arithmetic in our own words. The sequence is cut into 2 · sp chunks, and the rank (u, r), Ulysses
place u and ring place r, takes two of them: with a ring alone r and 2 · sp - 1 - r; with both,
r + 2uR and sp - 1 - r + 2uR. Its ring kernel takes for granted that the first half of a place's buffer, which
the Ulysses all-to-all puts together from the places u = 0, 1, …, lies before the other places' second halves.
With a Ulysses degree above 1 it does not. Without a ring, ranks take contiguous shards, and all is well.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


def chunks_of(ulysses_rank: int, ring_rank: int, ulysses_degree: int, ring_degree: int) -> tuple[int, int]:
    """Return the two chunks, of 2 · ulysses_degree · ring_degree, that a rank takes."""
    sp_size = ulysses_degree * ring_degree
    if ulysses_degree == 1:
        return ring_rank, 2 * sp_size - 1 - ring_rank
    offset = 2 * ulysses_rank * ring_degree
    return ring_rank + offset, sp_size - 1 - ring_rank + offset


def positions_of(rank: int, ulysses_degree: int, ring_degree: int, num_tokens: int) -> np.ndarray:
    """Return the positions of a rank; consecutive ranks form a Ulysses group.

    Some may lie behind the end of the sequence.
    """
    sp_size = ulysses_degree * ring_degree
    if ring_degree == 1:
        return np.split(np.arange(num_tokens), sp_size)[rank]
    ring_rank, ulysses_rank = divmod(rank, ulysses_degree)
    size = num_tokens // (2 * sp_size)
    chunks = chunks_of(ulysses_rank, ring_rank, ulysses_degree, ring_degree)
    return np.concatenate([np.arange(chunk * size, (chunk + 1) * size) for chunk in chunks])


class Partition(NamedTuple):
    """What becomes of the chunks of a sequence."""

    num_chunks: int
    unheld: int  # chunks that no rank holds
    held_twice: int  # chunks that more than one rank holds
    behind_the_end: int  # chunks that do not exist


def partition(ulysses_degree: int, ring_degree: int) -> Partition:
    """Count who holds what."""
    total = 2 * ulysses_degree * ring_degree
    held = [chunk for place in range(ring_degree) for chunk in _buffer(place, ulysses_degree, ring_degree)]
    counts = [held.count(chunk) for chunk in range(total)]
    return Partition(
        num_chunks=total,
        unheld=counts.count(0),
        held_twice=sum(count > 1 for count in counts),
        behind_the_end=sum(chunk >= total for chunk in held),
    )


class Pairs(NamedTuple):
    """Pairs of (query chunk, key chunk) of a sequence that is held exactly once."""

    causal: int  # that there are
    missed: int  # causal, but not attended
    future: int  # attended, but not causal


def pairs(ulysses_degree: int, ring_degree: int) -> Pairs:
    """Follow the ring's schedule over chunks, and compare what it attends with the causal mask."""
    buffers = [_buffer(place, ulysses_degree, ring_degree) for place in range(ring_degree)]
    attended = {pair for place in range(ring_degree) for pair in _attended(place, buffers)}
    total = 2 * ulysses_degree * ring_degree
    causal = {(query, key) for query in range(total) for key in range(query + 1)}
    return Pairs(len(causal), len(causal - attended), len(attended - causal))


def _buffer(ring_rank: int, ulysses_degree: int, ring_degree: int) -> list[int]:
    """Return the chunks of a ring place, in the order in which the all-to-all joins them."""
    return [
        chunk
        for ulysses_rank in range(ulysses_degree)
        for chunk in chunks_of(ulysses_rank, ring_rank, ulysses_degree, ring_degree)
    ]


def _attended(place: int, buffers: list[list[int]]) -> set[tuple[int, int]]:
    """Return what a ring place's queries attend to, step by step."""
    own, half = buffers[place], len(buffers[place]) // 2
    found = {(own[i], own[j]) for i in range(len(own)) for j in range(i + 1)}
    for step in range(1, len(buffers)):
        other = buffers[(place - step) % len(buffers)]
        queries, keys = (own, other[:half]) if step <= place else (own[half:], other)
        found |= {(query, key) for query in queries for key in keys}
    return found


def respread(embeds_tD: Tensor, positions: Tensor) -> Tensor:
    """Spread embeddings over ranks as the published code does; ``positions`` are those wanted here.

    Every rank writes its shard into zeros as long as the whole sequence, and the sum over ranks is taken in
    place. That sum is unknown to autograd: a gradient reaches only what this rank itself has written.
    """
    rank, num_tokens = dist.get_rank(), len(embeds_tD) * dist.get_world_size()
    buffer_TD: Any = embeds_tD.new_zeros(num_tokens, embeds_tD.shape[1])
    buffer_TD[rank * len(embeds_tD) : (rank + 1) * len(embeds_tD)] += embeds_tD
    dist.all_reduce(buffer_TD)
    return buffer_TD[positions]


def encoder_gradient_kept(rank: int, ulysses_degree: int, ring_degree: int, num_tokens: int) -> int:
    """Return how many of this rank's encoded tokens get a gradient; every token deserves one. Collective."""
    encoded_tD = torch.ones(num_tokens // dist.get_world_size(), 1, requires_grad=True)
    positions = torch.from_numpy(positions_of(rank, ulysses_degree, ring_degree, num_tokens))
    (gradient_tD,) = torch.autograd.grad(respread(encoded_tD, positions).sum(), encoded_tD)
    return int((gradient_tD != 0).sum())
