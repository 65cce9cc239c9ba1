"""Attention of one region: ``(q, k, v, mask) -> (out, lse)`` and its backward with an outside lse.

The backward takes out and lse of the *whole* row, so that the gradients of regions simply add up.
Queries and keys come sequence-major; a kernel never sees an empty region nor a query without a key.
"""

from longvila.parallel.kernels.cpu import CpuFlash
from longvila.parallel.kernels.cuda import CudaCudnn, CudaEfficient, CudaFlash
from longvila.parallel.kernels.flash_attn import FlashAttn2, FlashAttn3, FlashAttn4
from longvila.parallel.kernels.heads import HeadParts
from longvila.parallel.kernels.interface import Gradients, Inputs, Kernel, Mask
from longvila.parallel.kernels.pick import KERNEL_NAMES, pick_kernel
from longvila.parallel.kernels.plain import Plain

__all__ = [
    "KERNEL_NAMES",
    "CpuFlash",
    "CudaCudnn",
    "CudaEfficient",
    "CudaFlash",
    "FlashAttn2",
    "FlashAttn3",
    "FlashAttn4",
    "Gradients",
    "HeadParts",
    "Inputs",
    "Kernel",
    "Mask",
    "Plain",
    "pick_kernel",
]
