"""Reading the prompt: frames and question go through the model in chunks, and into the cache."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from longvila.inference.attention import cached_attend
from longvila.inference.cache import KvCache
from longvila.model.module import LongVila
from longvila.text.encode import Encoded

CHUNK_TOKENS = 4096

# T tokens of the prompt, F frames, k visual tokens of a frame, D width.


def prefill(
    model: LongVila,
    prompt: Encoded,
    features_FkD: Tensor,
    cache: KvCache,
    *,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Tensor:
    """Read what of ``prompt`` the cache does not hold yet; return the last token's hidden state [D].

    The cache must hold a true prefix of the prompt. Memory beside the cache grows with ``chunk_tokens``, not
    with the prompt.
    """
    assert cache.num_tokens < prompt.num_tokens
    embeds_1TD = embed_rest(model, prompt, features_FkD, start=cache.num_tokens)
    return read(model, embeds_1TD, cache, chunk_tokens=chunk_tokens, total_tokens=prompt.num_tokens)


def embed_rest(model: LongVila, prompt: Encoded, features_FkD: Tensor, *, start: int) -> Tensor:
    """Return the input embeddings [1, T − start, D] of a prompt from one token on."""
    device = features_FkD.device
    tokens_per_frame = features_FkD.shape[1]
    seats = (prompt.frame_seats[:, None] + np.arange(tokens_per_frame)).reshape(-1)
    wanted = torch.from_numpy(seats >= start).to(device)
    seats_n = torch.from_numpy(seats - start).to(device)[wanted]
    ids_T = torch.from_numpy(prompt.input_ids[start:]).to(device)
    return model.embed(ids_T[None], features_FkD.flatten(0, 1)[wanted], seats_n)


def read(
    model: LongVila, embeds_1TD: Tensor, cache: KvCache, *, chunk_tokens: int, total_tokens: int
) -> Tensor:
    """Send embeddings through the LLM behind what the cache holds; return the last hidden state [D]."""
    hidden_1tD = embeds_1TD[:, :0]
    for chunk_1tD in embeds_1TD.split(chunk_tokens, dim=1):
        first = cache.num_tokens
        positions = torch.arange(first, first + chunk_1tD.shape[1], device=chunk_1tD.device)
        hidden_1tD = model.decode(chunk_1tD, positions[None], attend=cached_attend, past_key_values=cache)
        cache.reserve(total_tokens)
    return hidden_1tD[0, -1]
