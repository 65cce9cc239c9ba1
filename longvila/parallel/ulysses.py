"""From tokens to heads and back: all ranks of a Ulysses group swap tokens for heads in one message.

Before, a rank holds all heads of its own tokens; after, all of the group's tokens for its own heads. The
ranks' slices follow one another in the row, so what arrives is already in order.
"""

# t tokens held by this rank, T tokens of the Ulysses group, H heads, h heads held here, D head size.

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from longvila.parallel.comm import DONE, Group, Work
from longvila.parallel.heads import HeadRange

Cuts = Sequence[HeadRange]
"""For each rank of the group, the heads that it gets of one tensor."""


class OnTheWay(NamedTuple):
    """Tensors that are complete once their messages have arrived."""

    tensors: list[Tensor]
    work: Work

    def wait(self) -> list[Tensor]:
        """Return the tensors once they have arrived."""
        self.work.wait()
        return self.tensors


def ahead(starts: Sequence[Callable[[], OnTheWay]]) -> Iterator[list[Tensor]]:
    """Yield what arrives, in order. While it is used, the messages of the next one are under way.

    What was yielded is not held on to, so that its user decides when the memory is free again.
    """
    arriving = starts[0]()
    for start_next in [*starts[1:], None]:
        arrived = [arriving.wait()]
        arriving = start_next() if start_next is not None else _NOTHING
        yield arrived.pop()


class Behind:
    """Takes in what was sent, one behind: the newest is still under way when the one before is taken."""

    def __init__(self) -> None:
        self._newest: tuple[OnTheWay, Callable[[list[Tensor]], None]] | None = None

    def push(self, way: OnTheWay, take: Callable[[list[Tensor]], None]) -> None:
        """Take in what was pushed before; ``take`` will be called with what ``way`` brings."""
        self.finish()
        self._newest = way, take

    def finish(self) -> None:
        """Take in what is still under way."""
        if self._newest is not None:
            way, take = self._newest
            self._newest = None
            take(way.wait())


_NOTHING = OnTheWay([], DONE)


def to_heads(tensors_tHD: Sequence[Tensor], cuts: Sequence[Cuts], group: Group) -> OnTheWay:
    """Send every rank its heads of the own tokens of several tensors, packed into one message per rank.

    Returns of each tensor the heads held here, ThD.
    """
    if group.size == 1:
        return OnTheWay([_columns(x, cut[0]) for x, cut in zip(tensors_tHD, cuts, strict=True)], DONE)
    num_tokens, _, head_size = tensors_tHD[0].shape
    own = [cut[group.rank].size for cut in cuts]
    sizes = [sum(cut[rank].size for cut in cuts) for rank in range(group.size)]
    source = tensors_tHD[0].new_empty(num_tokens * sum(sizes), head_size)
    for rank, block in enumerate(source.split([num_tokens * size for size in sizes])):
        held = [_columns(x, cut[rank]) for x, cut in zip(tensors_tHD, cuts, strict=True)]
        torch.cat(held, dim=1, out=block.view(num_tokens, -1, head_size))
    output = source.new_empty(num_tokens * group.size * sum(own), head_size)
    work = group.all_to_all(
        output,
        source,
        output_splits=[num_tokens * sum(own)] * group.size,
        source_splits=[num_tokens * size for size in sizes],
    )
    return OnTheWay(list(output.view(-1, sum(own), head_size).split(own, dim=1)), work)


def to_tokens(tensors_ThD: list[Tensor], cuts: Sequence[Cuts], group: Group) -> OnTheWay:
    """Send every rank its tokens of several tensors of the heads held here: the way back of ``to_heads``.

    Takes the tensors out of the list, so that they are free once they are packed. Returns, rank after rank,
    its heads of each tensor, of the own tokens, thD.
    """
    if group.size == 1:
        return OnTheWay(tensors_ThD, DONE)
    packed = tensors_ThD[0] if len(tensors_ThD) == 1 else torch.cat(tensors_ThD, dim=1)
    tensors_ThD.clear()
    num_tokens, head_size = len(packed) // group.size, packed.shape[2]
    sizes = [[cut[rank].size for cut in cuts] for rank in range(group.size)]
    splits = [num_tokens * sum(size) for size in sizes]
    output = packed.new_empty(sum(splits), head_size)
    work = group.all_to_all(
        output,
        packed.reshape(-1, head_size),
        output_splits=splits,
        source_splits=[num_tokens * packed.shape[1]] * group.size,
    )
    pieces = [
        piece
        for part, size in zip(output.split(splits), sizes, strict=True)
        for piece in part.view(num_tokens, -1, head_size).split(size, dim=1)
    ]
    return OnTheWay(pieces, work)


def _columns(x_tHD: Tensor, heads: HeadRange) -> Tensor:
    return x_tHD[:, heads.start : heads.stop]
