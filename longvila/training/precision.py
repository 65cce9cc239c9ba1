"""Number formats: weights are cast, buffers are not.

Rotary frequencies are buffers. Rounded to bfloat16 they turn far positions by wrong angles, which is what
``module.bfloat16()`` does to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast every parameter in place and leave buffers as they are."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Put back the buffers' values and formats after a block that casts the whole module."""
    before: list[tuple[nn.Module, str, Tensor]] = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    yield
    for owner, name, buffer in before:
        device = owner.get_buffer(name).device
        owner._buffers[name] = buffer.to(device)
