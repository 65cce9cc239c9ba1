"""What degrees of sequence parallelism must satisfy: several of them in one stage, and the LLM's heads.

The ranks of a larger degree are divided among whole groups of a smaller one, so that a micro-step can have
either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import Field

Degree = Annotated[int, Field(gt=0)]
Degrees = tuple[Degree, Degree]
"""(ulysses_degree, ring_degree); their product is the number of ranks that share a sequence."""


def check_smaller_degrees(degrees: Sequence[Degrees], *, max_tokens: int) -> None:
    """Raise ``ValueError`` unless each degree divides the next and ranks hold whole shares of ``max_tokens``.

    ``degrees`` ascend by their products but for the last, which is the stage's own and shall be the largest.
    """
    *smaller, own = degrees
    for pair in smaller:
        if math.prod(pair) >= math.prod(own):
            raise ValueError(
                f"smaller_degrees names {pair} of {math.prod(pair)} ranks, but the stage's own degrees "
                f"ulysses_degree={own[0]} × ring_degree={own[1]} have {math.prod(own)}. "
                "Leave out what is not smaller"
            )
    for pair, larger in pairwise(degrees):
        _check_nests(pair, larger)
    sp_size = math.prod(own)
    if smaller and max_tokens % sp_size:
        below = max_tokens // sp_size * sp_size
        raise ValueError(
            f"max_tokens={max_tokens} gives no whole share to each of the {sp_size} ranks, which "
            f"smaller_degrees need. Use {f'{below} or ' if below else ''}{below + sp_size}"
        )


def fewest_heads(num_heads: int, num_kv_heads: int, ulysses_degree: int) -> int:
    """Return how many query heads the rank with the fewest has: the most ``head_groups`` there can be.

    ``longvila.parallel.heads`` divides the heads so; where ranks share a KV head, its queries are divided.
    """
    if ulysses_degree % num_kv_heads == 0:
        return (num_heads // num_kv_heads) // (ulysses_degree // num_kv_heads)
    return num_heads // ulysses_degree


def _check_nests(pair: Degrees, larger: Degrees) -> None:
    ranks, of = math.prod(pair), math.prod(larger)
    if ranks == of:
        twice = f"{pair} twice" if pair == larger else f"{pair} and {larger}, both of {of} ranks"
        raise ValueError(f"smaller_degrees names {twice}. Keep one of them")
    if of % ranks:
        divisors = [size for size in range(1, of) if of % size == 0]
        raise ValueError(
            f"smaller_degrees names {pair} of {ranks} ranks, which do not divide the {of} ranks of the next "
            f"larger degrees {larger}. Use a pair whose product is one of {divisors}"
        )
