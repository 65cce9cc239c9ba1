"""Keys and values of what the model has read, so that each new token costs one step.

Buffers are reserved ahead and grow by a quarter, so that a long video's keys are not copied for every token.
A cache can be rolled back: the video's part is kept and the next question starts behind it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

GROWTH = 1.25
MIN_CAPACITY = 64

# B rows, t new tokens, s tokens held, g KV heads, D head size.


class GrowingLayer(CacheLayerMixin):
    """Keys and values of one layer, [B, g, s, D], in buffers that are larger than what they hold."""

    is_sliding = False
    is_croppable = True

    def __init__(self) -> None:
        super().__init__()
        self.num_tokens = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make empty buffers of the shape, the dtype and the device of what comes first."""
        self.keys = key_states[:, :, :0].contiguous()
        self.values = value_states[:, :, :0].contiguous()
        self.is_initialized = True

    def reserve(self, num_tokens: int) -> None:
        """Make room for so many tokens in all, if the layer has seen any."""
        if not self.is_initialized or self.capacity >= num_tokens:
            return
        assert self.keys is not None
        assert self.values is not None
        self.keys = self._moved(self.keys, num_tokens)
        self.values = self._moved(self.values, num_tokens)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append k_BgtD and v_BgtD; return all keys and values held."""
        del args, kwargs
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, stop = self.num_tokens, self.num_tokens + key_states.shape[2]
        if stop > self.capacity:
            self.reserve(max(stop, MIN_CAPACITY, int(self.capacity * GROWTH)))
        assert self.keys is not None
        assert self.values is not None
        self.keys[:, :, start:stop] = key_states
        self.values[:, :, start:stop] = value_states
        self.num_tokens = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    @property
    def capacity(self) -> int:
        """Tokens that fit without growing."""
        return 0 if self.keys is None else self.keys.shape[2]

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` tokens (zero or negative, as transformers counts)."""
        assert 0 <= -tokens_to_remove <= self.num_tokens
        self.num_tokens += tokens_to_remove

    def reset(self) -> None:
        """Forget everything."""
        self.keys = self.values = None
        self.is_initialized = False
        self.num_tokens = 0

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.num_tokens

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that a query of that length sees, and where they begin."""
        return self.num_tokens + query_length, 0

    def _moved(self, buffer: Tensor, capacity: int) -> Tensor:
        rows, heads, _, size = buffer.shape
        larger = buffer.new_empty(rows, heads, capacity, size)
        larger[:, :, : self.num_tokens] = buffer[:, :, : self.num_tokens]
        return larger


class KvCache(Cache):
    """The cache of all layers, for one sequence."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=GrowingLayer)

    @property
    def num_tokens(self) -> int:
        """Tokens held."""
        return self.get_seq_length()

    def reserve(self, num_tokens: int) -> None:
        """Make room for so many tokens in all, in every layer that has seen any."""
        for layer in self.layers:
            assert isinstance(layer, GrowingLayer)
            layer.reserve(num_tokens)

    def roll_back(self, num_tokens: int) -> None:
        """Forget all but the first ``num_tokens`` tokens."""
        for layer in self.layers:
            assert isinstance(layer, GrowingLayer)
            layer.crop(num_tokens - layer.num_tokens)


def kv_bytes_per_token(*, num_layers: int, num_kv_heads: int, head_size: int, dtype: torch.dtype) -> int:
    """Return what one token takes in the cache: keys and values of every layer."""
    return 2 * num_layers * num_kv_heads * head_size * dtype.itemsize
