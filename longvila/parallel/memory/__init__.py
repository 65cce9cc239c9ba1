"""What lets longer sequences fit: checkpointing that keeps attention, host memory, tiles of tokens."""

from longvila.parallel.memory.checkpointing import (
    Attended,
    enable_checkpointing,
    keep_attention,
    recall,
    remember,
)
from longvila.parallel.memory.host import HostMemory
from longvila.parallel.memory.tiling import tile_tokens

__all__ = [
    "Attended",
    "HostMemory",
    "enable_checkpointing",
    "keep_attention",
    "recall",
    "remember",
    "tile_tokens",
]
