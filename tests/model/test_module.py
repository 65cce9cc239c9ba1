"""The three parts together, in one process, through the product's own attention and exchange."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2ForCausalLM

from longvila.model import build_model, count_parameters, set_trainable
from longvila.model.parts import PARTS
from tests.model.helpers import (
    PLACEHOLDER,
    VOCAB,
    one_process_plan,
    random_frames,
    random_ids,
    run,
    tiny_config,
    tiny_model,
)


def test_equals_plain_transformers_with_the_tokens_put_in_by_hand() -> None:
    model, plan = tiny_model(), one_process_plan()
    ids, frames = random_ids(plan), random_frames(2)
    with torch.no_grad():
        hidden = run(model, plan, ids, frames)
        embeds = model.llm.get_input_embeddings()(ids.clamp(max=VOCAB - 1))
        embeds[0, 2:10] = model.encode_frames(frames).flatten(0, 1)
        model.llm.set_attn_implementation("sdpa")
        expected = model.llm(inputs_embeds=embeds[:, :24]).logits
    torch.testing.assert_close(model.lm_head(hidden)[:, :24], expected, rtol=1e-4, atol=1e-5)


def test_packed_documents_do_not_see_one_another() -> None:
    model, both = tiny_model(), one_process_plan(lengths=(14, 10), frame_seats=(2, 6, 16))
    ids, frames = random_ids(both), random_frames(3)
    alone = one_process_plan(lengths=(10,), frame_seats=(2,))
    second = torch.zeros(1, alone.layout.padded_length, dtype=torch.long)
    second[0, :10] = ids[0, 14:24]
    with torch.no_grad():
        together = run(model, both, ids, frames)[:, 14:24]
        torch.testing.assert_close(
            run(model, alone, second, frames[2:])[:, :10], together, rtol=1e-4, atol=1e-5
        )


def test_gradient_reaches_every_part_and_every_trainable_parameter() -> None:
    model, plan = tiny_model(), one_process_plan()
    set_trainable(model, PARTS)
    hidden = run(model, plan, random_ids(plan), random_frames(2))
    model.lm_head(hidden).logsumexp(dim=-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    for part in ("vision_tower.", "projector."):
        grads = [p.grad for n, p in model.named_parameters() if n.startswith(part) and p.grad is not None]
        assert any(grad.abs().sum() > 0 for grad in grads)


def test_a_row_without_frames_keeps_every_parameter_in_the_graph() -> None:
    model, plan = tiny_model(), one_process_plan(frame_seats=())
    set_trainable(model, PARTS)
    with_dummy = run(model, plan, random_ids(plan), None)
    with_dummy.sum().backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("vision_tower.", "projector.")) and parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.equal(parameter.grad, torch.zeros_like(parameter)), name
    set_trainable(model, ("llm",))
    assert not model.vision_trains()
    torch.testing.assert_close(run(model, plan, random_ids(plan), None), with_dummy, rtol=0, atol=0)


def test_frozen_vision_is_not_run_without_frames_unless_asked() -> None:
    model, plan = tiny_model(), one_process_plan(frame_seats=())
    set_trainable(model, ("llm",))
    calls: list[int] = []
    model.projector.register_forward_hook(lambda *_: calls.append(1))
    run(model, plan, random_ids(plan), None)
    assert not calls
    run(model, plan, random_ids(plan), random_frames(0), encoder_calls=3)
    assert len(calls) == 3


def test_the_placeholder_needs_no_embedding() -> None:
    model, plan = tiny_model(), one_process_plan()
    ids = random_ids(plan)
    beyond = ids.masked_fill(ids == PLACEHOLDER, 10 * VOCAB)
    with torch.no_grad():
        frames = random_frames(2)
        assert torch.equal(run(model, plan, ids, frames), run(model, plan, beyond, frames))


def test_checkpointing_changes_nothing() -> None:
    gradients = []
    for checkpointing in (False, True):
        model, plan = tiny_model().train(), one_process_plan()
        set_trainable(model, PARTS)
        if checkpointing:
            model.enable_gradient_checkpointing()
        run(model, plan, random_ids(plan), random_frames(2)).square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_frames_in_several_passes_are_the_same() -> None:
    model, frames = tiny_model().eval(), random_frames(5)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_frames(frames, frames_at_once=2), model.encode_frames(frames))


def test_the_seed_decides_the_weights_and_leaves_the_world_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (tiny_model(seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), expected)
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert not torch.equal(first.lm_head.get_parameter("weight"), other.lm_head.get_parameter("weight"))


def test_a_model_from_scratch_has_wide_embeddings_and_a_narrow_head() -> None:
    model = tiny_model()
    assert isinstance(model.llm, Qwen2ForCausalLM)
    assert 0.9 < float(model.llm.model.embed_tokens.weight.detach().std()) < 1.1
    assert float(model.lm_head.get_parameter("weight").detach().std()) < 0.03
    assert model.tokens_per_frame == tiny_config().tokens_per_frame == 4
    wide = tiny_model(llm=tiny_config().llm.model_copy(update={"init_std": 0.125}))
    for name in (
        "lm_head.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
    ):
        assert 0.11 < float(wide.llm.get_parameter(name).detach().std()) < 0.14
    assert float(wide.llm.get_input_embeddings().get_parameter("weight").detach().std()) > 0.9


@pytest.mark.parametrize("parts", [("projector",), ("projector", "llm"), PARTS])
def test_only_the_named_parts_train(parts: tuple) -> None:
    model = tiny_model()
    set_trainable(model, parts)
    trainable = count_parameters(model, trainable=True)
    assert {part for part, count in trainable.items() if count} == set(parts)
    assert sum(count_parameters(model).values()) == sum(p.numel() for p in model.parameters())
    assert trainable["vision_tower"] < count_parameters(model)["vision_tower"]  # layers beyond select_layer


def test_bfloat16_runs() -> None:
    model, plan = (
        build_model(tiny_config(), vocab_size=VOCAB, seed=0, dtype=torch.bfloat16),
        one_process_plan(),
    )
    hidden = run(model, plan, random_ids(plan), random_frames(2))
    assert hidden.dtype == torch.bfloat16
    assert bool(hidden.isfinite().all())
