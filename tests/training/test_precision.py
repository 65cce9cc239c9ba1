from __future__ import annotations

import torch
from torch import nn

from longvila.training.precision import buffers_kept, cast_parameters


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("frequencies", torch.tensor([0.1234567]), persistent=False)


def test_casting_leaves_buffers_exact() -> None:
    module = Rotary()
    exact = module.get_buffer("frequencies").clone()
    cast_parameters(module, torch.bfloat16)
    assert module.linear.weight.dtype == torch.bfloat16
    assert torch.equal(module.get_buffer("frequencies"), exact)
    with buffers_kept(module):
        module.bfloat16()
        assert module.get_buffer("frequencies").dtype == torch.bfloat16
    assert torch.equal(module.get_buffer("frequencies"), exact)
