"""Packages that may be installed or not. None is imported before it is asked for."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, TypeGuard

logger = logging.getLogger(__name__)


class Package(NamedTuple):
    """A package of kernels, where its two functions are, and how to get it."""

    title: str
    modules: tuple[str, ...]  # names under which it may be found
    forward: str
    backward: str
    install: str

    def functions(self) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
        """Return its forward and backward, or None where it cannot be imported or is too old."""
        for name in self.modules:
            module = _import(name)
            forward, backward = (
                getattr(module, function, None) for function in (self.forward, self.backward)
            )
            if _is_current(forward) and _is_current(backward):
                return forward, backward
        return None

    def __str__(self) -> str:
        return f"{self.title}, which cannot be imported here. Install it with `{self.install}`"


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        logger.warning("%s is installed, but cannot be imported: %s", name, error)
        return None


def _is_current(function: Callable[..., Any] | None) -> TypeGuard[Callable[..., Any]]:
    """Whether a function has the signature of today. Older ones take a window as a pair."""
    if function is None:
        return False
    parameters = inspect.signature(function).parameters
    # A custom op of torch shows *args and **kwargs. Functions with the old signature are not custom ops.
    return "window_size_left" in parameters or "kwargs" in parameters
