"""Adapters to the packages of flash-attn: versions 2, 3 and 4."""

# B regions of one shape, t queries, s keys, h query heads, g KV heads, D head size.

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from longvila.errors import ConfigError
from longvila.parallel.kernels.flash import Flash, Window
from longvila.parallel.kernels.interface import Gradients, Inputs
from longvila.parallel.kernels.package import Package

NO_LIMIT = -1
"""What versions 2 and 3 call a side of a window without limit; version 4 calls it None."""


class Packaged(Flash):
    """A kernel of a package. Raises ConfigError where that is missing."""

    package: ClassVar[Package]

    def __init__(self) -> None:
        functions = self.package.functions()
        if functions is None:
            raise ConfigError(f"{type(self).__name__} needs {self.package}.")
        self._run, self._run_backward = functions


class FlashAttn2(Packaged):
    """Version 2: half precision, head sizes up to 256."""

    package = Package(
        "flash-attn 2.7 or later",
        modules=("flash_attn.flash_attn_interface",),
        forward="_flash_attn_forward",
        backward="_flash_attn_backward",
        install="pip install flash-attn --no-build-isolation",
    )

    def _attend(self, x: Inputs, window: Window) -> tuple[Tensor, Tensor]:
        out, lse, *_ = self._run(
            *(x.q, x.k, x.v),
            dropout_p=0.0,
            softmax_scale=x.scale,
            causal=window.causal,
            window_size_left=_or_no_limit(window.left),
            window_size_right=NO_LIMIT,
            softcap=0.0,
            alibi_slopes=None,
            return_softmax=False,
        )
        return out, lse

    def _gradients(
        self, x: Inputs, window: Window, dout_BthD: Tensor, out_BthD: Tensor, lse_Bht: Tensor
    ) -> Gradients:
        grads = _empty_gradients(x)
        self._run_backward(
            *(dout_BthD, x.q, x.k, x.v, out_BthD, lse_Bht),
            *grads,
            dropout_p=0.0,
            softmax_scale=x.scale,
            causal=window.causal,
            window_size_left=_or_no_limit(window.left),
            window_size_right=NO_LIMIT,
            softcap=0.0,
            alibi_slopes=None,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        return grads


class FlashAttn3(Packaged):
    """Version 3, for Hopper: half precision, head sizes up to 256."""

    package = Package(
        "flash-attn 3 of December 2025 or later",
        modules=("flash_attn_interface", "flash_attn_3.flash_attn_interface"),
        forward="_flash_attn_forward",
        backward="_flash_attn_backward",
        install="pip install --no-build-isolation "
        '"git+https://github.com/Dao-AILab/flash-attention#subdirectory=hopper"',
    )

    def _attend(self, x: Inputs, window: Window) -> tuple[Tensor, Tensor]:
        out, lse, *_ = self._run(
            *(x.q, x.k, x.v),
            softmax_scale=x.scale,
            causal=window.causal,
            window_size_left=_or_no_limit(window.left),
            num_splits=0,  # as many as fill the device, which a single query over many keys needs
        )
        return out, lse

    def _gradients(
        self, x: Inputs, window: Window, dout_BthD: Tensor, out_BthD: Tensor, lse_Bht: Tensor
    ) -> Gradients:
        grads = _empty_gradients(x)
        self._run_backward(
            *(dout_BthD, x.q, x.k, x.v, out_BthD, lse_Bht),
            **grads._asdict(),
            softmax_scale=x.scale,
            is_causal=window.causal,
            window_size_left=_or_no_limit(window.left),
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        return grads


class FlashAttn4(Packaged):
    """Version 4, for Hopper and Blackwell: half precision, head sizes up to 256 and 128.

    (Blackwell takes 256 too, but without windows.)
    """

    package = Package(
        "flash-attn 4",
        modules=("flash_attn.cute.interface",),
        forward="_flash_attn_fwd",
        backward="_flash_attn_bwd",
        install="pip install flash-attn-4",
    )

    def _attend(self, x: Inputs, window: Window) -> tuple[Tensor, Tensor]:
        out, lse, *_ = self._run(
            *(x.q, x.k, x.v),
            softmax_scale=x.scale,
            causal=window.causal,
            window_size_left=window.left,
            return_lse=True,
        )
        return out, lse

    def _gradients(
        self, x: Inputs, window: Window, dout_BthD: Tensor, out_BthD: Tensor, lse_Bht: Tensor
    ) -> Gradients:
        grads = self._run_backward(
            *(x.q, x.k, x.v, out_BthD, dout_BthD, lse_Bht),
            softmax_scale=x.scale,
            causal=window.causal,
            window_size_left=window.left,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        return Gradients(*grads)


def _or_no_limit(left: int | None) -> int:
    return NO_LIMIT if left is None else left


def _empty_gradients(x: Inputs) -> Gradients:
    """Return contiguous room for gradients, which versions 2 and 3 write into."""
    return Gradients(*(tensor.new_empty(tensor.shape) for tensor in (x.q, x.k, x.v)))
