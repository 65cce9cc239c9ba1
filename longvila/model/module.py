"""LongVILA's model: a vision tower, a projector and an LLM put together.

The model does arithmetic. How tokens and frames are spread over processes reaches it as two callables,
``attend`` and ``exchange``; it cannot tell one process from many, and never imports torch.distributed.
"""

# B rows, T tokens of a row, t tokens of a row held here, f frames held here, k visual tokens of a frame, m of
# all frames held here, n visual tokens seated here, D LLM width.

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, SiglipVisionModel

from longvila.errors import InternalError
from longvila.model.projector import Projector
from longvila.model.rope import keep_rotary_precise
from longvila.model.vision import passes_of, select_features, single_side, used_parameters
from longvila.parallel.decoders import check_decoder
from longvila.parallel.memory import HostMemory, enable_checkpointing
from longvila.parallel.rotary import follow_documents

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

    def __call__(self, features: Tensor) -> Tensor:
        """Return, of features [f, k, D] or [m, D], the tokens [n, D] seated here, in the order of seats."""
        ...


Frames = Tensor | Sequence[Tensor]
"""Normalised frames: [f, 3, H, W] of one size, or a list of [3, H, W] of several."""


def identity_exchange(features: Tensor) -> Tensor:
    """The exchange of one process that holds all frames and all seats: frame after frame."""
    return features.flatten(0, -2)


class LongVila(nn.Module):
    """Vision tower, projector and LLM. Three parts with the names and the keys of the published layout.

    Raises ConfigError for an LLM whose tokens meet outside of the attention that can be spread over ranks.
    """

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
        check_decoder(llm)
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
        """Visual tokens of one frame of the tower's own size, without the separator."""
        return self.tokens_of(self.image_size, self.image_size)

    def tokens_of(self, height: int, width: int) -> int:
        """Visual tokens of a frame or image of so many pixels, without the separator."""
        return self.projector.tokens_of(self._grid(height, width))

    def encode_frames(self, frames: Frames, *, frames_at_once: int | None = None) -> Tensor:
        """Return visual tokens [f, k, D] of normalised frames; [m, D], frame after frame, of several sizes.

        A pass through the tower holds frames of one size, at most ``frames_at_once`` (by default all).
        """
        if isinstance(frames, Tensor):
            passes = frames.split(frames_at_once or max(len(frames), 1))
            return torch.cat([self._encode(some) for some in passes])
        rows: dict[int, Tensor] = {}
        for members in passes_of([frame.shape for frame in frames], frames_at_once):
            rows.update(zip(members, self._encode(torch.stack([frames[i] for i in members])), strict=True))
        return torch.cat([rows[i] for i in range(len(frames))])

    def _encode(self, frames_f3HW: Tensor) -> Tensor:
        frames_f3HW = frames_f3HW.to(next(self.projector.parameters()).dtype)
        features_fPC = select_features(self.vision_tower, frames_f3HW, select_layer=self.select_layer)
        return self.projector(features_fPC, self._grid(*frames_f3HW.shape[2:]))

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of a frame of so many pixels; what is left over is not seen."""
        patch = single_side(self.vision_tower.config.patch_size)
        return height // patch, width // patch

    def forward(
        self,
        input_ids_Bt: Tensor,
        position_ids_Bt: Tensor,
        frames: Frames | None,
        local_seats_n: Tensor,
        *,
        attend: Attend,
        exchange: Exchange,
        encoder_calls: int = 0,
        frames_at_once: int | None = None,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Return hidden states [B, t, D] after the last norm, before ``lm_head``.

        ``frames`` are those that this process encodes; none is fine. ``local_seats_n`` are the places of the
        visual tokens seated here, counted over the B rows one after another.

        Where tower or projector train, a process without frames sends a dummy through both, multiplied away
        after: hooks that fire on some processes only would hang. Where parameters are sharded, each pass
        gathers them: give the same number of ``encoder_calls`` on all processes, large enough for
        ``passes_of`` the most frames, and dummies fill up to it.
        """
        features, nothing = self._features_and_nothing(frames, encoder_calls, frames_at_once)
        embeds_BtD = self.embed(input_ids_Bt, exchange(features), local_seats_n)
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
        follow_documents(self.llm)
        output = self.llm.get_submodule("model")(
            inputs_embeds=embeds_BtD,
            position_ids=position_ids_Bt,
            past_key_values=past_key_values,
            use_cache=past_key_values is not None,
            attend=attend,
        )
        return output.last_hidden_state

    def enable_gradient_checkpointing(
        self, *, keep_attention: bool = True, host: HostMemory | None = None
    ) -> None:
        """Recompute each layer of tower and LLM in the backward pass; see ``enable_checkpointing``."""
        enable_checkpointing(self.llm, keep=keep_attention, host=host)
        enable_checkpointing(self.vision_tower, host=host)

    def vision_trains(self) -> bool:
        """Whether any parameter that a visual token depends on is trained."""
        used = used_parameters(self.vision_tower, self.select_layer)
        return any(parameter.requires_grad for parameter in (*used, *self.projector.parameters()))

    def _features_and_nothing(
        self, frames: Frames | None, encoder_calls: int, frames_at_once: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return this process's features and, when dummies were encoded, a zero that hangs on them."""
        sizes = [frame.shape for frame in frames] if frames is not None else []
        needed = len(passes_of(sizes, frames_at_once))
        missing = max(encoder_calls, int(self.vision_trains())) - needed
        dummies = [self._encode(self._dummy_frame()) for _ in range(missing)]
        nothing = torch.stack([dummy.sum() for dummy in dummies]).sum() * 0 if dummies else None
        if frames is not None and len(frames):
            return self.encode_frames(frames, frames_at_once=frames_at_once), nothing
        if dummies:
            return dummies[0][:0], nothing
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
