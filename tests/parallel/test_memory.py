"""Checkpointing that keeps attention's results: same gradients, no second attention, no second exchange."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from longvila.errors import ConfigError
from longvila.parallel import (
    HostMemory,
    Layout,
    enable_checkpointing,
    keep_attention,
    make_attend,
    make_groups,
    register_attention,
    tile_tokens,
)
from longvila.parallel.attention import Attend
from longvila.parallel.kernels import CpuFlash
from longvila.parallel.ring import RingAttention
from tests.distributed import run_ranks
from tests.parity.models import CloningHost, gradients

LAYOUT = Layout((30, 11))


def layer(x_BTHD: Tensor, attend: Attend) -> Tensor:
    """Two attentions in one checkpointed function, each needing the other's output again."""
    for head_scale in (1.0, 2.0):
        q = (x_BTHD.sin() * head_scale).transpose(1, 2)
        x_BTHD = x_BTHD + attend(q, q[:, :2], q[:, 2:4], scale=0.3).cos()
    return x_BTHD


def gradient(attend: Attend, size: int, *, checkpointed: bool) -> Tensor:
    x = torch.randn(
        1, size, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    ).requires_grad_()
    if checkpointed:
        out: Tensor = checkpoint(layer, x, attend, use_reentrant=False, context_fn=keep_attention)
    else:
        out = layer(x, attend)
    out.square().sum().backward()
    assert x.grad is not None
    return x.grad


def test_gradients_are_the_same_and_attention_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = make_attend(LAYOUT, make_groups())
    wanted = gradient(attend, LAYOUT.local_length, checkpointed=False)
    calls: list[int] = []
    original = CpuFlash.forward

    def counted(self: CpuFlash, q: Tensor, *args: Tensor, **kwargs: object) -> tuple[Tensor, Tensor]:
        calls.append(q.shape[1])
        return original(self, q, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(CpuFlash, "forward", counted)
    assert torch.equal(gradient(attend, LAYOUT.local_length, checkpointed=True), wanted)
    kept = len(calls)
    calls.clear()
    gradient(attend, LAYOUT.local_length, checkpointed=False)
    assert kept == len(calls) > 0


def test_a_second_backward_through_the_same_graph_attends_again() -> None:
    attend = make_attend(LAYOUT, make_groups())
    x = torch.randn(1, LAYOUT.local_length, 4, 8, dtype=torch.float64).requires_grad_()
    out: Tensor = checkpoint(layer, x, attend, use_reentrant=False, context_fn=keep_attention)
    (first,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
    (second,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(first, second)


def on_rank(_rank: int) -> tuple[Tensor, Tensor, int, int]:
    groups = make_groups(ulysses_degree=1, ring_degree=2)
    layout = Layout(LAYOUT.lengths, 1, 2)
    attend = make_attend(layout, groups)
    forwards: list[bool] = []
    original = RingAttention.forward

    def counted(self: RingAttention, q_ThD: Tensor, k_TgD: Tensor, v_TgD: Tensor) -> tuple[Tensor, Tensor]:
        forwards.append(True)
        return original(self, q_ThD, k_TgD, v_TgD)

    RingAttention.forward = counted
    plain = gradient(attend, layout.local_length, checkpointed=False)
    without = len(forwards)
    kept = gradient(attend, layout.local_length, checkpointed=True)
    return plain, kept, without, len(forwards) - without


def test_the_ring_forward_runs_once_per_attention_on_many_ranks() -> None:
    for plain, kept, without, with_checkpoint in run_ranks(on_rank, 2):
        assert torch.equal(plain, kept)
        assert without == with_checkpoint == 2


def tiny_llama(layers: int = 3) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    register_attention()
    model = LlamaForCausalLM(config).double().train()
    model.set_attn_implementation("mmsp")
    return model


def trained(model: LlamaForCausalLM) -> dict[str, Tensor]:
    """The gradients of one row of 41 tokens."""
    ids = (torch.arange(LAYOUT.local_length) % 11)[None]
    attend = make_attend(LAYOUT, make_groups())
    model(input_ids=ids, use_cache=False, attend=attend).logits.square().mean().backward()
    return gradients(model)


def test_inputs_of_layers_and_results_of_attention_wait_on_the_host() -> None:
    wanted = trained(tiny_llama())
    model, host = tiny_llama(), CloningHost()
    enable_checkpointing(model, host=host)
    found = trained(model)
    for name, gradient in wanted.items():
        assert torch.equal(found[name], gradient), name
    t = LAYOUT.local_length
    assert Counter(host.shapes) == {(1, t, 16): 3, (t, 4, 4): 3, (4, t): 3}


def test_an_error_in_a_layer_leaves_no_hook_behind() -> None:
    model, host = tiny_llama(), CloningHost()
    enable_checkpointing(model, host=host)
    with pytest.raises(ConfigError, match="needs its plan"):
        model(input_ids=torch.zeros(1, 4, dtype=torch.int64), use_cache=False)
    host.shapes.clear()
    x = torch.ones(3, requires_grad=True)
    (x * x).sum().backward()
    assert not host.shapes


def test_host_memory_leaves_what_is_there_already() -> None:
    host, tensor = HostMemory(), torch.ones(3)
    assert host.get(host.put(tensor)) is tensor


@pytest.mark.parametrize("tiles", [1, 3, 100])
def test_tiles_change_neither_gradients_nor_names(tiles: int) -> None:
    wanted, model = trained(tiny_llama()), tiny_llama()
    names = list(model.state_dict())
    tile_tokens(model, 2)
    tile_tokens(model, tiles)  # the last number counts
    assert list(model.state_dict()) == names
    found = trained(model)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-15, msg=name)
    model.eval()
    with torch.no_grad():
        ids, attend = torch.zeros(1, 42, dtype=torch.int64), make_attend(Layout((42,)), make_groups())
        model(input_ids=ids, use_cache=False, attend=attend)


def test_mlps_and_norms_see_one_tile_at_a_time() -> None:
    model, seen = tiny_llama(layers=1), []
    for name, module in model.named_modules():
        if name.endswith("gate_proj"):
            module.register_forward_hook(lambda _, x, __: seen.append(x[0].shape[1]))
    tile_tokens(model, 4)
    trained(model)
    assert set(seen) == {10, 11}
    assert len(seen) == 2 * 4  # forward, and once more in the backward pass


class Gated(torch.nn.RMSNorm):
    """A norm whose tokens come with a gate, another tensor."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return super().forward(x) * gate


def test_parts_whose_tokens_are_not_axis_1_alone_stay_whole() -> None:
    model = tiny_llama(layers=1)
    layer = model.model.layers[0]
    layer.gated = Gated(16).double()
    tile_tokens(model, 3)
    x = torch.randn(1, 7, 16, dtype=torch.float64)
    torch.testing.assert_close(layer.gated(x, x), torch.nn.RMSNorm(16).double()(x) * x)
    norm = torch.nn.RMSNorm(16).double()
    torch.testing.assert_close(layer.input_layernorm(x[0]), norm(x[0]), rtol=1e-5, atol=1e-6)  # [t, D]


def test_one_class_is_made_for_all_parts_of_a_kind() -> None:
    first, second = tiny_llama(layers=2), tiny_llama(layers=1)
    tile_tokens(first, 2)
    tile_tokens(second, 3)
    assert (
        type(first.model.layers[0].mlp) is type(first.model.layers[1].mlp) is type(second.model.layers[0].mlp)
    )


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch, of its own tracing
@pytest.mark.parametrize(
    ("backend", "tolerance"),
    [("aot_eager", 1e-12), ("inductor", 1e-5)],  # fuses norms, which are float32, otherwise
)
def test_a_compiled_model_may_be_tiled_and_checkpointed(backend: str, tolerance: float) -> None:
    wanted, model = trained(tiny_llama(layers=1)), tiny_llama(layers=1)
    enable_checkpointing(model)
    tile_tokens(model, 3)
    model.compile(backend=backend)
    found = trained(model)
    torch.compiler.reset()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=tolerance, atol=1e-3 * tolerance, msg=name)


def test_a_model_without_mlps_cannot_be_tiled() -> None:
    model = tiny_llama(layers=0)
    model.model.norm = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match=r"no MLP that can be tiled\. Set mlp_tiles=0"):
        tile_tokens(model, 2)
    with pytest.raises(ConfigError, match="mlp_tiles=0 must be at least 1"):
        tile_tokens(tiny_llama(), 0)
