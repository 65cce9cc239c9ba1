"""Activation checkpointing that does not attend twice.

Checkpointing runs a layer's forward again in the backward pass. For everything but attention that is cheap;
attention would be computed, and its keys be exchanged between nodes, once more. So its (out, lse) are kept
from the first run and handed to the second, which only swaps tokens for heads again.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedModel


class Attended(NamedTuple):
    """One attention's result between the two all-to-alls: T rows, h heads, head size D."""

    out: Tensor  # [T, h, D]
    lse: Tensor  # [h, T]


class _Run(AbstractContextManager[None]):
    """One run of a checkpointed function. Holds its attentions' results in the order in which they ran.

    Torch enters the second run's context once more when a graph is walked a second time; the results are
    gone by then, and attention runs again.
    """

    def __init__(self, results: deque[Attended], *, is_second: bool) -> None:
        self.results = results
        self.is_second = is_second
        self._tokens: list[Token[_Run | None]] = []

    def __enter__(self) -> None:
        self._tokens.append(_current.set(self))

    def __exit__(self, *_: object) -> None:
        _current.reset(self._tokens.pop())
        if self.is_second:
            self.results.clear()


_current: ContextVar[_Run | None] = ContextVar("checkpointed_run", default=None)


def keep_attention() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the first and the second run of one checkpointed function.

    This is a ``context_fn`` for the non-reentrant ``torch.utils.checkpoint.checkpoint``.
    """
    results: deque[Attended] = deque()
    return _Run(results, is_second=False), _Run(results, is_second=True)


def enable_checkpointing(model: PreTrainedModel) -> None:
    """Turn on activation checkpointing of a Hugging Face model's layers, keeping attention's results."""
    settings = {"use_reentrant": False, "context_fn": keep_attention}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(settings)
    else:
        model.gradient_checkpointing_enable(settings)


def recall() -> Attended | None:
    """Return the result of this attention from the first run, if this is a second run and has it."""
    run = _current.get()
    return run.results.popleft() if run is not None and run.is_second and run.results else None


def remember(result: Attended) -> None:
    """Keep a result for the second run, if this is the first run of a checkpointed function."""
    run = _current.get()
    if run is not None and not run.is_second:
        run.results.append(Attended(*(tensor.detach() for tensor in result)))
