"""Activation checkpointing that does not attend twice.

Checkpointing runs a layer's forward again in the backward pass. For everything but attention that is cheap;
attention would be computed, and its keys be exchanged between nodes, once more. So its (out, lse) are kept
from the first run and handed to the second, which only swaps tokens for heads again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor
from transformers import PreTrainedModel

from longvila.parallel.memory.host import HostMemory, Waiting


class Attended(NamedTuple):
    """One attention's result between the two all-to-alls: T rows, h heads, head size D."""

    out: Tensor  # [T, h, D]
    lse: Tensor  # [h, T]
    arrived: tuple[Tensor, ...] = ()  # keys that came from other ring places, if they are kept


class _Run(AbstractContextManager[None]):
    """One run of a checkpointed function. Holds its attentions' results in the order in which they ran.

    Torch enters the second run's context once more when a graph is walked a second time; the results are
    gone by then, and attention runs again.
    """

    def __init__(self, results: deque[tuple[Waiting, ...]], host: HostMemory | None, *, second: bool) -> None:
        self._results = results
        self._host = host
        self.is_second = second
        self._tokens: list[Token[_Run | None]] = []

    def __enter__(self) -> None:
        self._tokens.append(_current.set(self))

    def __exit__(self, *_: object) -> None:
        _current.reset(self._tokens.pop())
        if self.is_second:
            self._results.clear()

    def keep(self, result: Attended) -> None:
        """Keep a result for the second run."""
        parts = [tensor.detach() for tensor in (result.out, result.lse, *result.arrived)]
        put = self._host.put if self._host else _here
        self._results.append(tuple(put(part) for part in parts))

    def take(self) -> Attended | None:
        """Return the next result of the first run, if it is still there."""
        if not self._results:
            return None
        parts = self._results.popleft()
        out, lse, *arrived = (self._host.get(part) if self._host else part.copy for part in parts)
        return Attended(out, lse, tuple(arrived))


_current: ContextVar[_Run | None] = ContextVar("checkpointed_run", default=None)


def keep_attention(
    host: HostMemory | None = None,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the first and the second run of one checkpointed function.

    This is a ``context_fn`` for the non-reentrant ``torch.utils.checkpoint.checkpoint``. With ``host`` the
    kept results wait there.
    """
    results: deque[tuple[Waiting, ...]] = deque()
    return _Run(results, host, second=False), _Run(results, host, second=True)


def enable_checkpointing(
    model: PreTrainedModel, *, keep: bool = True, host: HostMemory | None = None
) -> None:
    """Turn on activation checkpointing of a Hugging Face model's layers.

    With ``keep`` attention's results are kept, as large as the layers' inputs, and attention runs once;
    without it, attention and its messages run twice. With ``host`` the layers' inputs and the kept results
    wait in the host's memory. (With transformers' own reentrant checkpointing nothing is kept.)
    """
    settings: dict[str, Any] = {"use_reentrant": False}
    if keep:
        settings["context_fn"] = partial(keep_attention, host)
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(settings)
    else:
        model.gradient_checkpointing_enable(settings)
    if host is not None:
        for module in model.modules():
            own = vars(module)
            if "_gradient_checkpointing_func" in own:  # what transformers has just put there
                run = own["_gradient_checkpointing_func"]
                own["_gradient_checkpointing_func"] = partial(_with_inputs_on, host, run)


def recall() -> Attended | None:
    """Return the result of this attention from the first run, if this is a second run and has it."""
    run = _current.get()
    return run.take() if run is not None and run.is_second else None


def remember(result: Attended) -> None:
    """Keep a result for the second run, if this is the first run of a checkpointed function."""
    run = _current.get()
    if run is not None and not run.is_second:
        run.keep(result)


def _here(tensor: Tensor) -> Waiting:
    return Waiting(tensor, tensor.device)


def _with_inputs_on(host: HostMemory, checkpointed: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a checkpointed layer, and have what it saves, its input, wait on the host.

    The hooks lie around the checkpoint, so they do not reach what its second run saves.
    """
    with host.takes_saved():
        return checkpointed(*args, **kwargs)
