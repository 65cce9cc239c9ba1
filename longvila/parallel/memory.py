"""Activation checkpointing that does not attend twice.

Checkpointing runs a layer's forward again in the backward pass. For everything but attention that is cheap;
attention would be computed, and its keys be exchanged between nodes, once more. So its (out, lse) are kept
from the first run and handed to the second, which only swaps tokens for heads again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedModel


class Attended(NamedTuple):
    """One attention's result between the two all-to-alls: T rows, h heads, head size D."""

    out: Tensor  # [T, h, D]
    lse: Tensor  # [h, T]


@dataclass
class _Kept:
    """The results of the attentions inside one checkpointed layer, in the order in which they ran."""

    results: deque[Attended] = field(default_factory=deque)
    replays: bool = False


_kept: ContextVar[_Kept | None] = ContextVar("kept_attention", default=None)


def keep_attention() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the first and the second run of one checkpointed function.

    This is a ``context_fn`` for the non-reentrant ``torch.utils.checkpoint.checkpoint``.
    """
    results: deque[Attended] = deque()
    return _use(_Kept(results)), _use(_Kept(results, replays=True))


def enable_checkpointing(model: PreTrainedModel) -> None:
    """Turn on activation checkpointing of a Hugging Face model's layers, keeping attention's results."""
    settings = {"use_reentrant": False, "context_fn": keep_attention}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(settings)
    else:
        model.gradient_checkpointing_enable(settings)


def recall() -> Attended | None:
    """Return the result of this attention from the first run, if this is a second run and has it."""
    kept = _kept.get()
    return kept.results.popleft() if kept is not None and kept.replays and kept.results else None


def remember(result: Attended) -> None:
    """Keep a result for the second run, if this is the first run of a checkpointed function."""
    kept = _kept.get()
    if kept is not None and not kept.replays:
        kept.results.append(Attended(*(tensor.detach() for tensor in result)))


@contextmanager
def _use(kept: _Kept) -> Iterator[None]:
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)
