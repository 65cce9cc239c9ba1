"""Counts the bytes of tensors that are alive, exactly, on any device and for fake tensors too.

With torch's ``FakeTensorMode`` a model of any size runs forward and backward in a second on any machine:
shapes are computed, numbers are not. What a kernel allocates inside itself is not seen; it can be told.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Inside = Callable[[Any, Sequence[Any]], int]
"""An operation and its arguments -> bytes"""


class LiveBytes(TorchDispatchMode):
    """While entered, every storage that an operation makes is counted until it is freed.

    ``inside`` may say what an operation's kernel allocates inside itself for as long as it runs.
    """

    def __init__(self, inside: Inside | None = None) -> None:
        super().__init__()
        self._inside = inside
        self.now = 0
        self.peak = 0
        self._counts = True
        self._known: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()

    def count(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were made before, such as weights."""
        for tensor in tensors:
            self._see(tensor)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Do not count what is made meanwhile, such as what stands for the host's memory."""
        self._counts = False
        try:
            yield
        finally:
            self._counts = True

    def restart_peak(self) -> None:
        """Forget the peak so far."""
        self.peak = self.now

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count what it made."""
        del types
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        if self._inside is not None:
            self.peak = max(self.peak, self.now + self._inside(func, args))
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        counted = self._known[storage] = storage.nbytes() if self._counts else 0
        self.now += counted
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, weakref.ref(self), counted)

    @staticmethod
    def _free(mode: weakref.ref[LiveBytes], counted: int) -> None:
        alive = mode()
        if alive is not None:
            alive.now -= counted
