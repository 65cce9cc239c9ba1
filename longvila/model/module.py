"""LongVILA's model: a vision tower, a projector and an LLM put together.

The model does arithmetic. How tokens and frames are spread over processes reaches it as two callables,
``attend`` and ``exchange``; it cannot tell one process from many, and never imports torch.distributed.
"""

# B rows, T tokens of a row, t tokens of a row held here, f frames held here, k visual tokens of a frame,
# n visual tokens seated here, D LLM width.

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, SiglipVisionModel

from longvila.errors import InternalError
from longvila.model.projector import Projector
from longvila.model.rope import keep_rotary_precise
from longvila.model.vision import select_features, single_side, used_parameters
from longvila.parallel.memory import enable_checkpointing

ATTENTION = "mmsp"
"""The name under which ``longvila.parallel.register_attention`` puts the attention that calls ``attend``."""


class Attend(Protocol):
    """Attention over the whole sequence, of which this process holds a part."""

    def __call__(
        self,
        q_BHtD: Tensor,
        k_BhtD: Tensor,
        v_BhtD: Tensor,
        *,
        scale: float,
        window: int | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Return the output [B, t, H, D]."""
        ...


class Exchange(Protocol):
    """Sends each visual token from the process that encoded it to the one that owns its seat."""

    def __call__(self, features_fkD: Tensor) -> Tensor:
        """Return the tokens [n, D] that are seated here, in the order of their seats."""
        ...


def identity_exchange(features_fkD: Tensor) -> Tensor:
    """The exchange of one process that holds all frames and all seats: frame after frame."""
    return features_fkD.flatten(0, 1)


class LongVila(nn.Module):
    """Vision tower, projector and LLM. Three parts with the names and the keys of the published layout."""

    def __init__(
        self,
        vision_tower: SiglipVisionModel,
        projector: Projector,
        llm: PreTrainedModel,
        *,
        select_layer: int = -2,
        frame_separator: str | None = "\n",
    ) -> None:
        super().__init__()
        self.vision_tower = vision_tower
        self.projector = projector
        self.llm = llm
        self.select_layer = select_layer
        self.frame_separator = frame_separator

    @property
    def lm_head(self) -> nn.Module:
        """Turns hidden states into logits; not part of ``forward``: logits are never whole in memory."""
        head = self.llm.get_output_embeddings()
        assert isinstance(head, nn.Module)
        return head

    @property
    def image_size(self) -> int:
        """Pixels per side of a frame."""
        return single_side(self.vision_tower.config.image_size)

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of one frame, without the separator."""
        side = self.image_size // single_side(self.vision_tower.config.patch_size)
        return self.projector.tokens_per_frame(side * side)

    def encode_frames(self, frames_f3HW: Tensor, *, frames_at_once: int | None = None) -> Tensor:
        """Return visual tokens [f, k, D] of normalised frames, so many in a pass (by default all)."""
        if frames_at_once is None or len(frames_f3HW) <= frames_at_once:
            return self._encode(frames_f3HW)
        return torch.cat([self._encode(some) for some in frames_f3HW.split(frames_at_once)])

    def _encode(self, frames_f3HW: Tensor) -> Tensor:
        dtype = next(self.projector.parameters()).dtype
        frames_f3HW = frames_f3HW.to(dtype)
        return self.projector(select_features(self.vision_tower, frames_f3HW, select_layer=self.select_layer))

    def forward(
        self,
        input_ids_Bt: Tensor,
        position_ids_Bt: Tensor,
        frames_f3HW: Tensor | None,
        local_seats_n: Tensor,
        *,
        attend: Attend,
        exchange: Exchange,
        always_encode: bool = False,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Return hidden states [B, t, D] after the last norm, before ``lm_head``.

        ``frames_f3HW`` are the frames that this process encodes, normalised; none is fine.
        ``local_seats_n`` are the places of the visual tokens seated here, counted over the B rows one after
        another. Where tower or projector train, or with ``always_encode`` (parameters that are sharded over
        processes), a process without frames sends a dummy through both, multiplied away after: hooks that
        fire on some processes only would hang.
        """
        features_fkD, nothing = self._features_and_nothing(frames_f3HW, always_encode)
        embeds_BtD = self.embed(input_ids_Bt, exchange(features_fkD), local_seats_n)
        if nothing is not None:
            embeds_BtD = embeds_BtD + nothing.to(embeds_BtD.dtype)
        return self.decode(embeds_BtD, position_ids_Bt, attend=attend, past_key_values=past_key_values)

    def embed(self, input_ids_Bt: Tensor, rows_nD: Tensor, local_seats_n: Tensor) -> Tensor:
        """Return input embeddings [B, t, D]: words looked up, visual tokens ``rows_nD`` on their seats."""
        table = self.llm.get_input_embeddings()
        # The placeholder's id may lie outside the table (published tables have no row for it), and its row,
        # if there is one, must take no part.
        ids = input_ids_Bt.flatten().index_fill(0, local_seats_n, 0)
        embeds = table(ids)
        embeds = embeds.index_copy(0, local_seats_n, rows_nD.to(embeds.dtype))
        return embeds.view(*input_ids_Bt.shape, -1)

    def decode(
        self,
        embeds_BtD: Tensor,
        position_ids_Bt: Tensor,
        *,
        attend: Attend,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Return the LLM's hidden states [B, t, D] after the last norm for given input embeddings."""
        _use_attend(self.llm)
        keep_rotary_precise(self.llm)
        output = self.llm.get_submodule("model")(
            inputs_embeds=embeds_BtD,
            position_ids=position_ids_Bt,
            past_key_values=past_key_values,
            use_cache=past_key_values is not None,
            attend=attend,
        )
        return output.last_hidden_state

    def enable_gradient_checkpointing(self) -> None:
        """Recompute each layer of tower and LLM in the backward pass; attention's results are kept."""
        enable_checkpointing(self.llm)
        enable_checkpointing(self.vision_tower)

    def vision_trains(self) -> bool:
        """Whether any parameter that a visual token depends on is trained."""
        used = used_parameters(self.vision_tower, self.select_layer)
        return any(parameter.requires_grad for parameter in (*used, *self.projector.parameters()))

    def _features_and_nothing(
        self, frames: Tensor | None, always_encode: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return this process's features and, when a dummy was encoded instead, a zero that hangs on it."""
        if frames is not None and len(frames):
            return self.encode_frames(frames), None
        if always_encode or self.vision_trains():
            dummy_1kD = self.encode_frames(self._dummy_frame())
            return dummy_1kD[:0], dummy_1kD.sum() * 0
        weight = next(self.projector.parameters())
        width = self.llm.config.hidden_size
        return weight.new_zeros(0, self.tokens_per_frame, width), None

    def _dummy_frame(self) -> Tensor:
        weight = next(self.projector.parameters())
        return weight.new_zeros(1, 3, self.image_size, self.image_size)


def _use_attend(llm: PreTrainedModel) -> None:
    if llm.config._attn_implementation == ATTENTION:
        return
    try:
        llm.set_attn_implementation(ATTENTION)
    except ValueError as error:
        raise InternalError(
            f"The attention {ATTENTION!r} is not registered with transformers. "
            "Call longvila.parallel.register_attention() once before the model runs."
        ) from error
