import pytest
import torch

from longvila.inference.cache import MIN_CAPACITY, KvCache, kv_bytes_per_token


def pieces(lengths, *, layers=2):
    torch.manual_seed(0)
    return [[(torch.randn(1, 2, n, 4), torch.randn(1, 2, n, 4)) for n in lengths] for _ in range(layers)]


def test_pieces_come_back_as_one():
    cache, layers = KvCache(), pieces((5, 1, 90, 3))
    for step in range(4):
        for number, layer in enumerate(layers):
            keys, values = cache.update(*layer[step], number)
    assert cache.num_tokens == 99
    assert torch.equal(keys, torch.cat([k for k, _ in layers[1]], dim=2))
    assert torch.equal(values, torch.cat([v for _, v in layers[1]], dim=2))


def test_rolling_back_forgets_only_the_end():
    cache, (layer, _) = KvCache(), pieces((10, 4, 4))
    cache.update(*layer[0], 0)
    cache.update(*layer[1], 0)
    cache.roll_back(10)
    keys, _ = cache.update(*layer[2], 0)
    assert cache.num_tokens == 14
    assert torch.equal(keys, torch.cat([layer[0][0], layer[2][0]], dim=2))
    with pytest.raises(AssertionError):
        cache.roll_back(15)


def test_single_tokens_rarely_move_the_buffer():
    cache = KvCache()
    token = torch.zeros(1, 1, 1, 2)
    addresses = {cache.update(token, token, 0)[0].data_ptr() for _ in range(1000)}
    assert len(addresses) < 20
    assert MIN_CAPACITY <= cache.layers[0].capacity < 1300


def test_reserved_room_is_not_moved():
    cache = KvCache()
    token = torch.zeros(1, 1, 1, 2)
    cache.update(token, token, 0)
    cache.reserve(5000)
    addresses = {cache.update(token, token, 0)[0].data_ptr() for _ in range(999)}
    assert len(addresses) == 1


def test_size_of_a_token():
    # Qwen2-7B: 28 layers × 4 heads × 128 × keys and values × 2 bytes = 56 KiB
    size = kv_bytes_per_token(num_layers=28, num_kv_heads=4, head_size=128, dtype=torch.bfloat16)
    assert size == 56 * 1024
