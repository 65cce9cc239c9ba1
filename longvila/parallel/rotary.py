"""RoPE whose frequencies depend on the length of a sequence (``dynamic``, ``longrope``), over many ranks.

transformers takes that length from the largest position that it sees: on a rank that holds a part of the row
this is too small, and in a packed row it is another document's. Here every document gets its own length, from
the layout. Kinds of RoPE that do not look at lengths stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    _Module = nn.Module
else:
    _Module = object


class DocumentRows(NamedTuple):
    """The tokens held by a rank that belong to documents of one length."""

    length: int  # of the whole document
    rows: Tensor  # int64, their places among the rank's tokens


class _PerDocument(_Module):
    """Mixed into the class of a rotary module: each document's angles from its own length."""

    document_rows: Sequence[DocumentRows] | None = None

    def forward(self, x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return cos and sin [B, t, D] of a rank's tokens (with M-RoPE, of each of its axes)."""
        angles = super().forward
        if self.document_rows is None:
            return angles(x, position_ids, *args, **kwargs)
        parts = []
        for length, rows in self.document_rows:
            self._forget_lengths(*args, **kwargs)
            last = position_ids.new_full((*position_ids.shape[:-1], 1), length - 1)
            ids = torch.cat([position_ids.index_select(-1, rows), last], dim=-1)
            parts.append([turned[..., :-1, :] for turned in angles(x, ids, *args, **kwargs)])
        self._forget_lengths(*args, **kwargs)
        order = torch.cat([rows for _, rows in self.document_rows]).argsort()
        cos, sin = (torch.cat(turned, dim=-2).index_select(-2, order) for turned in zip(*parts, strict=True))
        return cos, sin

    def _forget_lengths(self, layer_type: str | None = None) -> None:
        """Undo what the longest sequence so far did to the frequencies: a document's own length decides."""
        prefix = "" if layer_type is None else f"{layer_type}_"
        original = getattr(self, f"{prefix}original_inv_freq")
        self.register_buffer(f"{prefix}inv_freq", original.clone(), persistent=False)
        setattr(self, f"{prefix}max_seq_len_cached", self.original_max_seq_len)


def follow_documents(decoder: nn.Module) -> None:
    """Let a Hugging Face decoder turn positions by each document's own length, if its RoPE looks at lengths.

    The lengths come with the model call, from its keyword ``attend``. May be called more than once.
    """
    own = getattr(getattr(decoder, "config", None), "rope_parameters", None)
    if isinstance(own, Mapping) and not depends_on_length(own):
        return
    for owner in list(decoder.modules()):
        for rotary in owner.children():
            parameters = getattr(getattr(rotary, "config", None), "rope_parameters", None)
            is_rotary = hasattr(rotary, "original_max_seq_len")
            if is_rotary and depends_on_length(parameters) and not isinstance(rotary, _PerDocument):
                kind = type(rotary)
                rotary.__class__ = type(f"PerDocument{kind.__name__}", (_PerDocument, kind), {})
                owner.register_forward_pre_hook(_take_lengths, with_kwargs=True)
                owner.register_forward_hook(_drop_lengths, always_call=True)


def depends_on_length(rope_parameters: Any) -> bool:
    """Whether RoPE with these parameters (of a configuration, for all layers or by kind) looks at lengths."""
    if not isinstance(rope_parameters, Mapping):
        return False
    kind = rope_parameters.get("rope_type")
    if kind is None:
        return any(depends_on_length(of_kind) for of_kind in rope_parameters.values())
    return "dynamic" in kind or kind == "longrope"


def _take_lengths(owner: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
    document_rows = getattr(kwargs.get("attend"), "document_rows", None)
    if document_rows is not None:
        for rotary in _followers(owner):
            rotary.document_rows = document_rows(rotary.get_buffer("inv_freq").device)


def _drop_lengths(owner: nn.Module, *_: Any) -> None:
    for rotary in _followers(owner):
        rotary.document_rows = None


def _followers(owner: nn.Module) -> list[_PerDocument]:
    return [child for child in owner.children() if isinstance(child, _PerDocument)]
