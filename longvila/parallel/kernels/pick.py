"""Which kernel runs where."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from longvila.errors import ConfigError
from longvila.parallel.heads import UniformHeads
from longvila.parallel.kernels.cpu import CpuFlash
from longvila.parallel.kernels.cuda import CudaCudnn, CudaEfficient, CudaFlash
from longvila.parallel.kernels.flash_attn import FlashAttn2, FlashAttn3, FlashAttn4, Packaged
from longvila.parallel.kernels.heads import HeadParts
from longvila.parallel.kernels.interface import Kernel
from longvila.parallel.kernels.plain import Plain


class Site(NamedTuple):
    """Where a kernel is to run, and on what."""

    device: str
    capability: tuple[int, int]  # of a CUDA device; (0, 0) elsewhere
    dtype: torch.dtype
    head_size: int


class Option(NamedTuple):
    """A kernel and what it asks for; None: anything will do."""

    kernel: type[Kernel]
    device: str | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    head_sizes: Mapping[int, int] | None = None  # the largest, by major compute capability


HALF = (torch.float16, torch.bfloat16)
SINCE_AMPERE = range(8, 100)

OPTIONS: Mapping[str, Option] = {
    "flash_attn_2": Option(FlashAttn2, "cuda", HALF, dict.fromkeys((8, 9, 10, 12), 256)),
    "flash_attn_3": Option(FlashAttn3, "cuda", HALF, {9: 256}),
    "flash_attn_4": Option(FlashAttn4, "cuda", HALF, {9: 256, 10: 128, 11: 128, 12: 128}),
    "torch_flash": Option(CudaFlash, "cuda", HALF, dict.fromkeys(SINCE_AMPERE, 256)),
    "cudnn": Option(CudaCudnn, "cuda", HALF, dict.fromkeys(SINCE_AMPERE, 128)),
    "efficient": Option(CudaEfficient, "cuda", (torch.float32,)),
    "cpu": Option(CpuFlash, "cpu"),
    "plain": Option(Plain),
}

KERNEL_NAMES = ("auto", *OPTIONS)
"""What ``attention_kernel`` may be."""

# The first that suits. cudnn is not among them: we have not measured whether it is faster anywhere.
AUTO = ("flash_attn_3", "flash_attn_4", "flash_attn_2", "torch_flash", "efficient", "cpu", "plain")


def pick_kernel(q: Tensor, parts: tuple[UniformHeads, ...], *, name: str = "auto") -> Kernel:
    """Return the kernel ``name`` for tensors like ``q`` [..., D], or the best for them.

    ``parts`` are the heads that a kernel can take at once. Raises ConfigError for a name that is unknown, not
    installed, or does not suit the tensors and their device.
    """
    on_cuda = q.device.type == "cuda"
    capability = torch.cuda.get_device_capability(q.device) if on_cuda else (0, 0)
    kernel = kernel_for(Site(q.device.type, capability, q.dtype, q.shape[-1]), name)
    return kernel if len(parts) == 1 else HeadParts(kernel, parts)


@lru_cache(maxsize=64)
def kernel_for(site: Site, name: str) -> Kernel:
    """Return the kernel ``name`` for a site; see pick_kernel."""
    if name == "auto":
        name = next(option for option in AUTO if _refusal(OPTIONS[option], site) is None)
    if name not in OPTIONS:
        raise ConfigError(f"attention_kernel={name} is unknown. Use one of {', '.join(KERNEL_NAMES)}.")
    refusal = _refusal(OPTIONS[name], site)
    if refusal is not None:
        raise ConfigError(f"attention_kernel={name} {refusal} attention_kernel=auto.")
    return OPTIONS[name].kernel()


def _refusal(option: Option, site: Site) -> str | None:
    """Say what does not suit, and how to mend it, up to "use ..."; None if all suits."""
    major = site.capability[0]
    if option.device not in (None, site.device):
        return f"runs on {option.device}, but the tensors are on {site.device}. Use"
    if option.dtypes is not None and site.dtype not in option.dtypes:
        wanted = " or ".join(_short(dtype) for dtype in option.dtypes)
        return f"takes {wanted}, but the tensors are {_short(site.dtype)}. Convert them, or use"
    if option.head_sizes is not None and major not in option.head_sizes:
        given = ".".join(str(number) for number in site.capability)
        return f"has no code for a device of compute capability {given}. Use"
    if option.head_sizes is not None and site.head_size > option.head_sizes[major]:
        most = option.head_sizes[major]
        return f"takes head sizes up to {most} here, but the LLM has {site.head_size}. Use"
    if issubclass(option.kernel, Packaged) and option.kernel.package.functions() is None:
        return f"needs {option.kernel.package}, or use"
    return None


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
