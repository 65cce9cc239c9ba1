"""Causal attention of a packed row over all ranks that share it (MM-SP, stage two).

``make_attend`` binds a plan and groups to a function of q, k and v that a model calls like any attention.
``register_attention`` makes it known to transformers as ``attn_implementation="mmsp"``, so that Hugging Face
decoders run over many ranks unpatched: the plan of a row comes with the model call, as the keyword
``attend``, which transformers hands on to every layer's attention.
"""

# B rows (always 1: documents are packed), t tokens held by this rank, H query heads, h KV heads, D head size.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from longvila.errors import ConfigError
from longvila.parallel.blocks import Blocks
from longvila.parallel.function import AttentionFunction, Part
from longvila.parallel.groups import Groups
from longvila.parallel.heads import HeadPart, HeadPlan
from longvila.parallel.kernels import pick_kernel
from longvila.parallel.layout import Layout
from longvila.parallel.plan import Plan
from longvila.parallel.ring import RingAttention
from longvila.parallel.rotary import DocumentRows, depends_on_length
from longvila.parallel.schedule import make_schedule

ATTENTION_NAME = "mmsp"
"""The name under which transformers finds this attention."""


class Attend(Protocol):
    """Causal attention of a packed row, each rank giving and getting its own tokens."""

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
        """Return out_BtHD.

        ``window`` limits how many of the latest keys a query sees. ``sinks`` are learned scores, one per
        query head, of a key without a value.
        """
        ...


def make_attend(
    plan: Plan | Layout,
    groups: Groups,
    *,
    head_groups: int = 0,
    keep_keys: bool = False,
    kernel: str = "auto",
) -> Attend:
    """Bind a plan's layout to the processes of ``groups``.

    With ``head_groups`` > 1 heads go through in so many groups: one group's messages hide behind another's
    computation, and attention's buffers shrink. With ``keep_keys`` the keys that came around the ring are
    kept for the backward pass, where they would travel once more. ``kernel`` names what computes a block of
    attention, one of ``KERNEL_NAMES``. Raises ConfigError when plan and groups disagree.
    """
    layout = plan.layout if isinstance(plan, Plan) else plan
    planned, given = (layout.ulysses_degree, layout.ring_degree), (groups.ulysses_degree, groups.ring_degree)
    if planned != given:
        raise ConfigError(
            f"the plan is made for (ulysses_degree, ring_degree) = {planned}, the groups for {given}. "
            "Make both with the same degrees."
        )
    return _MmspAttend(layout, groups, head_groups, keep_keys, kernel)


@dataclass
class _MmspAttend:
    """See make_attend. All index tables are made once per layout and reused by every layer."""

    layout: Layout
    groups: Groups
    head_groups: int
    keep_keys: bool
    kernel: str
    gave_lengths: bool = False

    @property
    def lengths_matter(self) -> bool:
        """Whether a rank cannot see by itself how long a document is, and nobody asked for lengths."""
        return not self.gave_lengths and (self.layout.sp_size > 1 or len(self.layout.lengths) > 1)

    @torch.compiler.disable(reason="messages and index tables are made outside of compiled graphs")
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
        _check_shapes(q_BHtD, k_BhtD, v_BhtD, self.layout)
        q, k, v = (x[0].transpose(0, 1).to(v_BhtD.dtype) for x in (q_BHtD, k_BhtD, v_BhtD))
        parts = make_parts(
            self.layout if window is None else replace(self.layout, window=window),
            self.groups,
            q,
            k.shape[1],
            scale=scale,
            head_groups=self.head_groups,
            keep_keys=self.keep_keys,
            kernel=self.kernel,
        )
        out: Any = AttentionFunction.apply(q, k, v, sinks, parts)
        return out[None]

    def document_rows(self, device: torch.device) -> tuple[DocumentRows, ...]:
        """Return this rank's tokens by the length of their document, for RoPE that looks at lengths."""
        self.gave_lengths = True
        return _document_rows(self.layout, self.groups.sp_rank, device)


def make_parts(
    layout: Layout,
    groups: Groups,
    q_tHD: Tensor,
    num_kv_heads: int,
    *,
    scale: float,
    head_groups: int = 0,
    keep_keys: bool = False,
    kernel: str = "auto",
) -> tuple[Part, ...]:
    """Return the groups of heads that go through one after another, and their way through the ring.

    With them ``function.attend`` and ``function.gradients`` can be called without autograd. ``q_tHD`` is only
    looked at: its device, dtype and heads.
    """
    schedule = make_schedule(layout, groups.ring_rank, q_tHD.device)
    parts = []
    for heads in head_parts(q_tHD.shape[1], num_kv_heads, layout.ulysses_degree, head_groups):
        block_kernel = pick_kernel(q_tHD, heads.uniform(groups.ulysses_rank), name=kernel)
        ring = RingAttention(Blocks(schedule, block_kernel, scale), groups.ring, keep_keys)
        parts.append(Part(heads, ring, groups.ulysses))
    return tuple(parts)


@lru_cache(maxsize=32)
def _document_rows(layout: Layout, sp_rank: int, device: torch.device) -> tuple[DocumentRows, ...]:
    lengths_t = layout.document_lengths()[layout.positions_of(sp_rank)]
    return tuple(
        DocumentRows(int(length), torch.from_numpy(np.flatnonzero(lengths_t == length)).to(device))
        for length in np.unique(lengths_t)
    )


@lru_cache(maxsize=32)
def head_parts(
    num_heads: int, num_kv_heads: int, ulysses_degree: int, head_groups: int
) -> tuple[HeadPart, ...]:
    """Divide heads over ranks and into groups that go through one after another."""
    return HeadPlan(num_heads, num_kv_heads, ulysses_degree).parts(head_groups)


def mmsp_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    attend: Attend | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' attention functions do; ``attend`` comes with the model call.

    Returns out_BtHD and no weights. Raises ConfigError for what is not supported.
    """
    if attend is None:
        raise ConfigError(
            f'attn_implementation="{ATTENTION_NAME}" needs its plan: call the model with '
            "attend=longvila.parallel.make_attend(plan, groups)."
        )
    _check_rope(module, attend)
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    _refuse(dropout=dropout, mask=attention_mask, softcap=softcap, causal=causal)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(query, key, value, scale=scale, window=sliding_window, sinks=s_aux), None


def no_mask(attention_mask: Tensor | None = None, **_: Any) -> None:
    """Make no mask: the layout knows the documents. Raises ConfigError when a given mask hides tokens."""
    if attention_mask is not None and not bool(attention_mask.all()):
        raise ConfigError(
            f'attn_implementation="{ATTENTION_NAME}" got an attention_mask that hides '
            f"{int((~attention_mask.bool()).sum())} tokens. Leave attention_mask out: give the documents' "
            "true lengths to make_plan, which pads the packed row itself."
        )


def register_attention() -> None:
    """Make ``attn_implementation="mmsp"`` known to transformers. May be called more than once.

    Set it on the LLM only: ``attn_implementation={"text_config": "mmsp", "vision_config": "sdpa"}``.
    """
    AttentionInterface.register(ATTENTION_NAME, mmsp_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, _as_mask_function(no_mask))


def _as_mask_function(function: Callable[..., None]) -> Callable[..., Any]:
    """Hide from the type checker that no mask comes out, which transformers takes well."""
    return function


def _check_rope(module: nn.Module, attend: Attend) -> None:
    """Raise ConfigError for RoPE that would take a rank's longest part for the length of a document."""
    parameters = getattr(getattr(module, "config", None), "rope_parameters", None)
    if isinstance(attend, _MmspAttend) and attend.lengths_matter and depends_on_length(parameters):
        raise ConfigError(
            f"{type(module).__name__} has RoPE that depends on the length of a document (rope_parameters="
            f"{parameters}), which a rank that holds a part of it does not know. "
            "Call longvila.parallel.follow_documents(model) once, before the model runs."
        )


def _refuse(*, dropout: float, mask: Tensor | None, softcap: float | None, causal: bool) -> None:
    """Raise ConfigError for the first thing given that this attention does not do."""
    given = [
        (dropout > 0, f"attention_dropout={dropout}", "Set attention_dropout=0 in the model's config"),
        (
            mask is not None,
            f"a mask of shape {() if mask is None else tuple(mask.shape)}",
            "Leave attention_mask out, and give the documents' lengths to make_plan",
        ),
        (bool(softcap), f"softcap={softcap}", "Use a model without score capping"),
        (
            not causal,
            "attention that is not causal",
            "Keep this part of the model on sdpa: "
            'attn_implementation={"text_config": "mmsp", "vision_config": "sdpa"}',
        ),
    ]
    for is_given, what, mend in given:
        if is_given:
            raise ConfigError(f'attn_implementation="{ATTENTION_NAME}" does not support {what}. {mend}.')


def _check_shapes(q_BHtD: Tensor, k_BhtD: Tensor, v_BhtD: Tensor, layout: Layout) -> None:
    """Raise ConfigError for what the layout or the kernels cannot take."""
    if q_BHtD.shape[0] != 1:
        raise ConfigError(
            f"attention got a batch of {q_BHtD.shape[0]} rows. Pack the documents into one row; "
            "the layout's lengths keep them apart."
        )
    if not k_BhtD.shape == v_BhtD.shape or k_BhtD.shape[3] != q_BHtD.shape[3]:
        raise ConfigError(
            f"attention got q, k, v of shapes {[tuple(x.shape) for x in (q_BHtD, k_BhtD, v_BhtD)]}. "
            "It needs one head size for all three, and as many keys as values."
        )
    if not q_BHtD.shape[2] == k_BhtD.shape[2] == layout.local_length:
        raise ConfigError(
            f"attention got {q_BHtD.shape[2]} queries and {k_BhtD.shape[2]} keys on this rank, but the plan "
            f"gives every rank {layout.local_length} of {layout.padded_length} positions. Shard the row with "
            "plan.layout.positions_of(sp_rank), and call the model with use_cache=False."
        )
