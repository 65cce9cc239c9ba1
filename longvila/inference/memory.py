"""What a question needs before it is asked: room in the trained context, and memory for keys and values."""

from __future__ import annotations

import torch

from longvila.errors import InputError, MachineError
from longvila.inference.cache import GROWTH, kv_bytes_per_token
from longvila.model.module import LongVila


def check_fits(model: LongVila, *, num_tokens: int, num_frames: int, tokens_per_frame: int) -> None:
    """Raise before any work when the prompt and its answer cannot fit, and say how many frames would.

    InputError when they are longer than the context that the model was trained for, MachineError when their
    keys and values need more memory than there is.
    """
    context = int(model.llm.config.max_position_embeddings)
    if num_tokens > context:
        raise InputError(
            f"{num_frames} frames and the question are {num_tokens} tokens; this model was trained for "
            f"{context}. " + _mend(num_frames, num_tokens - context, tokens_per_frame)
        )
    weight = model.llm.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    per_token = kv_bytes_of(model)
    available = available_bytes(weight.device)
    if num_tokens * per_token > available:
        missing = num_tokens - int(available / per_token / GROWTH)
        raise MachineError(
            f"keys and values of {num_tokens} tokens need {num_tokens * per_token / 2**30:.1f} GiB; "
            f"{available / 2**30:.1f} GiB are free on {weight.device}. "
            + _mend(num_frames, missing, tokens_per_frame)
        )


def kv_bytes_of(model: LongVila) -> int:
    """Return what one token takes in the model's cache."""
    config = model.llm.config
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return kv_bytes_per_token(
        num_layers=config.num_hidden_layers,
        num_kv_heads=config.num_key_value_heads,
        head_size=head_size,
        dtype=model.llm.dtype,
    )


def available_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device, or on this machine for the CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil  # the models run without it; only this question needs it

    return int(psutil.virtual_memory().available)


def _mend(num_frames: int, excess_tokens: int, tokens_per_frame: int) -> str:
    fitting = num_frames - -(-excess_tokens // tokens_per_frame)
    return f"Ask with frames={fitting} or fewer." if fitting > 0 else "Ask a shorter question."
