"""DeepSpeed's AutoSP for multimodal models, as its documentation says to use it.

``auto_wrap_model_for_sp`` wraps the attention of the vision tower, which is then given a slice of each
frame's patches; an adapter around the projector gathers the visual tokens, puts them on their seats, and
cuts the sequence. The LLM's attention it leaves alone, with a warning: the user is to see to that, which is
done here with DeepSpeed's own ALST, or not at all.
"""

# P patches of a frame, p patches held by a rank, C tower width, t tokens held by a rank, D LLM width.

from __future__ import annotations

import logging

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.mmsp.tinyvlm import Document, Gradients, gradients, make_model, share_of_loss
from benchmarks.peers import alst
from longvila.model import LongVila

PLACEHOLDER = -1


def on_rank(rank: int, document: Document, with_alst: bool) -> Gradients:
    """Return this rank's gradients: forward over the wrapped model, and back."""
    from deepspeed.sequence.auto_sp import auto_wrap_model_for_sp
    from deepspeed.sequence.autosp_fusion import InternVLFusionAdapter

    alst.start()
    logging.getLogger("deepspeed").setLevel(logging.ERROR)
    logging.getLogger("deepspeed.sequence.auto_sp").setLevel(logging.ERROR)
    model, num_ranks = make_model(), dist.get_world_size()
    model.llm.set_attn_implementation("sdpa")
    if with_alst:
        model.vision_tower.set_attn_implementation("eager")  # ALST takes sdpa away from everybody
        alst.register(model.llm, num_ranks)
    auto_wrap_model_for_sp(model, process_group=dist.group.WORLD)
    adapter = InternVLFusionAdapter(model.projector.layers, dist.group.WORLD, image_token_id=PLACEHOLDER)
    ids = document.ids.index_fill(0, document.seats, PLACEHOLDER)
    words_1TD = model.llm.get_input_embeddings()(document.ids[None])
    fused_1tD = adapter(_encode(model, document, rank, num_ranks), words_1TD, ids[None])
    positions = torch.arange(len(document.ids)).chunk(num_ranks)[rank]
    hidden = model.llm.get_submodule("model")(
        inputs_embeds=fused_1tD, position_ids=positions[None], use_cache=False
    ).last_hidden_state
    share_of_loss(model, hidden, document, positions).backward()
    return {name.replace(".self_attn.attn.", ".self_attn."): grad for name, grad in gradients(model).items()}


def _encode(model: LongVila, document: Document, rank: int, num_ranks: int) -> Tensor:
    """Run the tower as far as the model reads it, on this rank's slice of the patches."""
    tower = getattr(model.vision_tower, "vision_model", model.vision_tower)
    hidden_1PC = tower.embeddings(document.frames)
    hidden_1pC = hidden_1PC.chunk(num_ranks, dim=1)[rank]
    for layer in tower.encoder.layers[: model.select_layer + 1]:
        hidden_1pC = layer(hidden_1pC, attention_mask=None)
    return hidden_1pC
