"""DeepSpeed's ALST (Ulysses for Hugging Face models), as installed.

DeepSpeed compiles a shared-memory extension when it starts on CPU, which takes minutes and needs a compiler;
it is told that this one does not exist. Nothing here is imported before a benchmark asks for it.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import torch.distributed as dist
from transformers import PreTrainedModel


def prepare(extensions: Path) -> None:
    """Import DeepSpeed for CPU; call it before ranks are forked, so that it is done once.

    ``extensions`` is a fresh folder for what torch compiles: a lock left in the usual one would hang it.
    """
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["TORCH_EXTENSIONS_DIR"] = str(extensions)
    warnings.filterwarnings("ignore", module="deepspeed")
    import deepspeed
    from deepspeed.utils.logging import logger

    logger.setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def start() -> None:
    """Let DeepSpeed use the world that torch.distributed has already made."""
    import deepspeed.comm

    assert dist.is_initialized()
    if not deepspeed.comm.is_initialized():
        deepspeed.comm.init_distributed(dist_backend="gloo", verbose=False)


def register(model: PreTrainedModel, num_ranks: int) -> None:
    """Put ALST's attention in the place of ``sdpa``, for every model of this process."""
    from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF

    start()
    UlyssesSPAttentionHF.register_with_transformers(
        model_name_or_path=model,
        core_attn_implementation="sdpa",
        sequence_parallel_size=num_ranks,
        micro_batch_size=1,
        seq_length_is_variable=True,
    )


def version() -> str:
    """Return DeepSpeed's version."""
    import deepspeed

    return str(deepspeed.__version__)
