"""Greedy decoding, one token at a time, until the model ends its answer or it is clear that it never will."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from longvila.inference.attention import is_finite
from longvila.inference.cache import KvCache
from longvila.inference.prefill import read
from longvila.model.module import LongVila

Finish = Literal["end", "length", "repetition", "not_a_number"]

MAX_PERIOD = 16
MIN_REPEATS = 6
MIN_REPEATED_TOKENS = 24


class Generated(NamedTuple):
    """The answer's tokens, the end token left out, and why decoding stopped."""

    tokens: tuple[int, ...]
    finish: Finish


def generate(
    model: LongVila, last_D: Tensor, cache: KvCache, *, end_ids: Collection[int], max_new_tokens: int
) -> Generated:
    """Decode greedily behind what the cache holds. ``last_D`` is the hidden state of the prompt's last token.

    Stops at an end token, at ``max_new_tokens``, when the answer goes round in circles, and when the logits
    are not numbers (a broken checkpoint or too narrow a dtype), which gives "!!!!" elsewhere.
    """
    table = model.llm.get_input_embeddings()
    tokens: list[int] = []
    while len(tokens) < max_new_tokens:
        logits_V = model.lm_head(last_D)
        if not is_finite(logits_V):
            return Generated(tuple(tokens), "not_a_number")
        token = int(logits_V.argmax())
        if token in end_ids:
            return Generated(tuple(tokens), "end")
        tokens.append(token)
        if repeats(tokens):
            return Generated(tuple(tokens), "repetition")
        embeds_11D = table(torch.tensor([[token]], device=last_D.device))
        last_D = read(model, embeds_11D, cache, chunk_tokens=1, total_tokens=0)
    return Generated(tuple(tokens), "length")


def repeats(tokens: Sequence[int]) -> bool:
    """Whether the tail is one short phrase over and over: at least 6 times, and at least 24 tokens."""
    for period in range(1, MAX_PERIOD + 1):
        length = max(MIN_REPEATED_TOKENS, period * MIN_REPEATS)
        if len(tokens) < length:
            continue
        tail = tokens[-length:]
        if all(tail[i] == tail[i - period] for i in range(period, length)):
            return True
    return False
