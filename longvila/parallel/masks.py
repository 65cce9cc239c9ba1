"""Reads what a mask of transformers hides, without making it.

transformers describes a mask by small functions put together: causal, and inside a window, and of the same
packed document. Those that a layout knows are read; any other would be dropped in silence, so it is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from longvila.errors import ConfigError

_ALL_OF = ("and_masks.<locals>.and_mask",)
_AROUND_ONE = (
    "remap_positions_for_packed_sequence.<locals>.inner_mask",
    "add_offsets_to_mask_function.<locals>.inner_mask",
)
_KNOWN = ("causal_mask_function", "packed_sequence_mask_function.<locals>.inner_mask")
_WINDOW = "sliding_window_overlay.<locals>.inner_mask"


@dataclass(frozen=True)
class SlidingWindow:
    """Stands where a layer would find its mask: each query sees so many of the latest keys."""

    tokens: int


def read_mask(mask_function: Callable[..., Any] | None) -> SlidingWindow | None:
    """Return the window of a mask, or None for a causal one; documents are kept apart by the layout.

    Raises ConfigError for a mask that hides or shows anything else.
    """
    windows = [] if mask_function is None else list(_windows(mask_function))
    return SlidingWindow(min(windows)) if windows else None


def _windows(function: Callable[..., Any]) -> Iterator[int]:
    name = getattr(function, "__qualname__", type(function).__name__)
    held = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
    if name in _ALL_OF:
        for part in held["mask_functions"]:
            yield from _windows(part)
    elif name in _AROUND_ONE:
        yield from _windows(held["mask_function"])
    elif name == _WINDOW:
        yield int(held["sliding_window"])
    elif name not in _KNOWN:
        raise ConfigError(
            f"this model masks attention by {name.partition('.')[0]}, which sequence parallelism does not "
            "know: it knows causal attention, sliding windows and packed documents. Keep this model, or this "
            "part of it, on sdpa and on one process."
        )
