import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from longvila.errors import ConfigError
from longvila.inference.attention import cached_attend


def reference(q, k, v, scale):
    """Causal attention aligned at the last key, written out with a mask."""
    new, total = q.shape[2], k.shape[2]
    seen = torch.arange(total) <= torch.arange(total - new, total)[:, None]
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True).transpose(1, 2)


@pytest.mark.parametrize("held", [0, 1, 37])
@pytest.mark.parametrize("new", [1, 2, 24])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_new_tokens_see_what_is_held_and_each_other(held, new, kv_heads):
    generator = torch.Generator().manual_seed(7)
    shapes = ((4, new), (kv_heads, held + new), (kv_heads, held + new))
    q, k, v = (torch.randn(1, h, n, 16, generator=generator, dtype=torch.float64) for h, n in shapes)
    out = cached_attend(q, k, v, scale=0.3)
    assert out.shape == (1, new, 4, 16)
    torch.testing.assert_close(out, reference(q, k, v, 0.3), rtol=1e-10, atol=1e-12)


def test_half_precision_comes_out_as_it_went_in():
    q, k, v = (torch.randn(1, 2, n, 16, dtype=torch.bfloat16) for n in (4, 20, 20))
    out = cached_attend(q, k, v, scale=0.25)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, reference(q, k, v, 0.25), rtol=0.02, atol=0.02)


def test_what_is_not_known_is_refused():
    x = torch.randn(1, 2, 8, 16)
    with pytest.raises(ConfigError, match="use an LLM without a sliding window"):
        cached_attend(x, x, x, scale=1.0, window=4)
    with pytest.raises(ConfigError, match="sinks"):
        cached_attend(x, x, x, scale=1.0, sinks=torch.zeros(2))
    assert cached_attend(x, x, x, scale=1.0, window=8).shape == (1, 8, 2, 16)
