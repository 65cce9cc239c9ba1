"""One forward and backward of the tiny model over ranks, by every system that is compared."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2Config,
    SiglipVisionConfig,
)

from benchmarks.mmsp.tinyvlm import (
    PER_FRAME,
    VOCABULARY,
    Attend,
    Document,
    Gradients,
    gradients,
    make_model,
    share_of_loss,
)
from benchmarks.peers import alst, vila_indices
from benchmarks.peers.relay import Attention2D, RelayLayout
from longvila.parallel import make_attend, make_exchange, make_groups, make_plan

Degrees = tuple[int, int]


def ours(_rank: int, document: Document, degrees: Degrees) -> Gradients:
    """MM-SP: frames divided, visual tokens exchanged, attention over all ranks."""
    groups = make_groups(ulysses_degree=degrees[0], ring_degree=degrees[1])
    plan = make_plan(
        [len(document.ids)],
        document.first_seats,
        tokens_per_frame=PER_FRAME,
        ulysses_degree=degrees[0],
        ring_degree=degrees[1],
    )
    model = make_model()
    positions = torch.from_numpy(plan.layout.positions_of(groups.sp_rank))
    hidden = model(
        document.ids[positions][None],
        positions[None],
        document.frames[plan.frames_of(groups.sp_rank)],
        torch.from_numpy(plan.local_seats(groups.sp_rank)),
        attend=make_attend(plan, groups),
        exchange=make_exchange(plan, groups),
    )
    share_of_loss(model, hidden, document, positions).backward()
    return gradients(model)


def relay(rank: int, document: Document, degrees: Degrees) -> Gradients:
    """The classic relay on a text."""
    layout = RelayLayout((len(document.ids),), *degrees)
    return _text(document, torch.from_numpy(layout.positions_of(rank)), _relay(layout))


def published_text(rank: int, document: Document, degrees: Degrees) -> Gradients:
    """The published indices on a text: its tokens, and the ring that takes them for what they are not."""
    positions = vila_indices.positions_of(rank, *degrees, len(document.ids))
    layout = RelayLayout((len(document.ids),), *degrees)
    return _text(document, torch.from_numpy(positions), _relay(layout))


def published_whole(rank: int, document: Document, degrees: Degrees) -> Gradients:
    """The published way with frames: each rank encodes those of its shard, and all embeddings are spread."""
    warnings.filterwarnings("ignore", message=".*autograd kernel was not registered")
    model, num_tokens = make_model(), len(document.ids)
    shard = torch.arange(num_tokens).chunk(dist.get_world_size())[rank]
    seats = document.seats[torch.isin(document.seats, shard)]
    first = torch.tensor([bool(torch.isin(torch.tensor(seat), shard)) for seat in document.first_seats])
    features = model.encode_frames(document.frames[first])
    embeds = model.embed(document.ids[shard][None], features.flatten(0, 1), seats - shard[0])
    positions = torch.from_numpy(vila_indices.positions_of(rank, *degrees, num_tokens))
    spread = vila_indices.respread(embeds[0], positions)
    attend = _relay(RelayLayout((num_tokens,), *degrees))
    hidden = model.decode(spread[None], positions[None], attend=attend)
    share_of_loss(model, hidden, document, positions).backward()
    return gradients(model)


def alst_text(rank: int, document: Document) -> Gradients:
    """DeepSpeed's ALST on a text."""
    model = make_model()
    model.llm.set_attn_implementation("sdpa")
    alst.register(model.llm, dist.get_world_size())
    positions = torch.arange(len(document.ids)).chunk(dist.get_world_size())[rank]
    hidden = model.llm.get_submodule("model")(
        input_ids=document.ids[positions][None], position_ids=positions[None], use_cache=False
    ).last_hidden_state
    share_of_loss(model, hidden, document, positions).backward()
    return gradients(model)


class Said(NamedTuple):
    """What a system says to a model, and which of its parts got any gradient."""

    error: str
    parts: set[str]


def alst_vlm(rank: int, document: Document, vision_attention: str) -> Said:
    """DeepSpeed's ALST on a Hugging Face LLaVA of SigLIP and Qwen2."""
    llava, ids = _llava(document, vision_attention)
    alst.register(llava, dist.get_world_size())
    positions = torch.arange(len(document.ids)).chunk(dist.get_world_size())[rank]
    given = {"pixel_values": document.frames.float(), "position_ids": positions[None], "use_cache": False}
    said = ""
    try:
        llava(input_ids=ids[positions][None], **given).logits.sum().backward()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    names = [name for name, parameter in llava.named_parameters() if parameter.grad is not None]
    parts = {"tower": "vision_tower", "projector": "multi_modal_projector", "llm": "language_model"}
    return Said(said, {part for part, key in parts.items() if any(key in name for name in names)})


def encoder_tokens_kept(rank: int, degrees: Degrees, num_tokens: int) -> int:
    """Count the encoded tokens that get a gradient back through the published spreading."""
    warnings.filterwarnings("ignore", message=".*autograd kernel was not registered")
    return vila_indices.encoder_gradient_kept(rank, *degrees, num_tokens)


def _text(document: Document, positions: Tensor, attend: Attend) -> Gradients:
    model = make_model()
    nowhere = torch.zeros(0, dtype=torch.int64)
    embeds = model.embed(document.ids[positions][None], torch.zeros(0, 32), nowhere)
    hidden = model.decode(embeds, positions[None], attend=attend)
    share_of_loss(model, hidden, document, positions).backward()
    return gradients(model)


def _relay(layout: RelayLayout) -> Attend:
    groups = make_groups(ulysses_degree=layout.ulysses_degree, ring_degree=layout.ring_degree)
    attention = Attention2D(layout, groups)

    def attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float, **_: object) -> Tensor:
        return attention(q, k, v, scale=scale)

    return attend


def _llava(document: Document, vision_attention: str) -> tuple[PreTrainedModel, Tensor]:
    """Build the model, and the ids with its placeholders."""
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
    )
    text = Qwen2Config(
        vocab_size=VOCABULARY + 1,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=VOCABULARY,
        vision_feature_select_strategy="full",
        vision_feature_layer=-2,
    )
    model = LlavaForConditionalGeneration(config)
    model.set_attn_implementation({"": "sdpa", "text_config": "sdpa", "vision_config": vision_attention})
    return model.train(), document.ids.index_fill(0, document.seats, VOCABULARY)
