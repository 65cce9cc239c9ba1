"""What attention refuses, and what it makes of half precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from longvila.errors import ConfigError, InputError
from longvila.parallel import Layout, make_attend, make_groups, make_plan


def qkv(tokens: int = 8, *, batch: int = 1, head_size: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    shape = (batch, 2, tokens, head_size)
    return torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)


@pytest.mark.parametrize(
    ("inputs", "mend"),
    [
        (qkv(batch=2), "Pack the documents into one row"),
        (qkv(6), r"every rank 8 of 8 positions.*use_cache=False"),
        ((qkv()[0], qkv(head_size=6)[1], qkv(head_size=6)[2]), "one head size for all three"),
    ],
)
def test_inputs_that_do_not_fit_the_plan_are_refused(
    inputs: tuple[Tensor, Tensor, Tensor], mend: str
) -> None:
    attend = make_attend(make_plan((7,)), make_groups())
    with pytest.raises(ConfigError, match=mend):
        attend(*inputs, scale=1.0)


def test_a_plan_for_other_degrees_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"= \(2, 1\), the groups for \(1, 1\)\. Make both"):
        make_attend(Layout((8,), 2, 1), make_groups())


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        ({"sinks": torch.zeros(1)}, r"sinks of shape \(1,\) for 2 query heads\. Give one for each"),
        ({"sinks": torch.zeros(2, 1)}, r"sinks of shape \(2, 1\) for 2 query heads"),
        ({"window": 0}, "window=0 must be at least 1, or none"),
    ],
)
def test_sinks_and_windows_that_fit_nothing_are_refused(given: dict[str, Any], mend: str) -> None:
    attend = make_attend(Layout((8,)), make_groups())
    with pytest.raises(ConfigError, match=mend):
        attend(*qkv(), scale=1.0, **given)


def test_a_window_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(InputError, match=r"window=\[2\.5\] must be whole numbers"):
        make_attend(Layout((8,)), make_groups())(*qkv(), scale=1.0, window=2.5)  # pyright: ignore[reportArgumentType]


def test_arguments_of_other_kinds_are_refused() -> None:
    wrong: Any = (make_groups(), Layout((8,)))
    with pytest.raises(
        ConfigError, match=r"make_attend got \(Groups, Layout\)\. Give a Plan or a Layout, then"
    ):
        make_attend(*wrong)


def test_more_head_groups_than_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"head_groups=3 .* Use at most 2"):
        make_attend(Layout((8,)), make_groups(), head_groups=3)(*qkv(), scale=1.0)


@pytest.mark.parametrize("lengths", [(300,), (40, 30, 1, 200), (3000,)])
def test_half_precision_stays_near_float64(lengths: tuple[int, ...]) -> None:
    layout = Layout(lengths)
    attend = make_attend(layout, make_groups())
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 4, layout.local_length, 16, generator=generator).double() for _ in range(3))
    exact = attend(q, k, v, scale=0.25)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        found = attend(q.to(dtype), k.to(dtype), v.to(dtype), scale=0.25)
        assert found.dtype == dtype
        assert (found.double() - exact).abs().max() < tolerance


def test_rotated_queries_in_float32_follow_the_values_dtype() -> None:
    """Under autocast, rotary embeddings may leave q and k in float32 beside half-precision values."""
    q, k, v = qkv()
    out = make_attend(Layout((8,)), make_groups())(q, k, v.bfloat16(), scale=1.0)
    assert out.dtype == torch.bfloat16
