"""Causal attention of a packed row over all ranks that share it (MM-SP, stage two).

``make_attend`` binds a plan and groups to a function of q, k and v that a model calls like any attention.
"""

# B rows (always 1: documents are packed), t tokens held by this rank, H query heads, h KV heads, D head size.

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from longvila.errors import ConfigError
from longvila.parallel.blocks import Blocks
from longvila.parallel.function import AttentionFunction, Part
from longvila.parallel.groups import Groups
from longvila.parallel.heads import HeadPart, HeadPlan
from longvila.parallel.kernels import pick_kernel
from longvila.parallel.layout import Layout
from longvila.parallel.plan import Plan
from longvila.parallel.ring import RingAttention
from longvila.parallel.rotary import DocumentRows
from longvila.parallel.schedule import make_schedule


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
    if not isinstance(plan, Plan | Layout) or not isinstance(groups, Groups):
        raise ConfigError(
            f"make_attend got ({type(plan).__name__}, {type(groups).__name__}). Give a Plan or a Layout, "
            "then the Groups of make_groups."
        )
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
        _check_shapes(q_BHtD, k_BhtD, v_BhtD, sinks, self.layout)
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


def lengths_matter(attend: Attend) -> bool:
    """Whether a rank cannot see by itself how long a document is, and nobody has asked for lengths."""
    if not isinstance(attend, _MmspAttend) or attend.gave_lengths:
        return False
    return attend.layout.sp_size > 1 or len(attend.layout.lengths) > 1


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


def _check_shapes(
    q_BHtD: Tensor, k_BhtD: Tensor, v_BhtD: Tensor, sinks_H: Tensor | None, layout: Layout
) -> None:
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
    if sinks_H is not None and sinks_H.shape != q_BHtD.shape[1:2]:
        raise ConfigError(
            f"attention got sinks of shape {tuple(sinks_H.shape)} for {q_BHtD.shape[1]} query heads. "
            "Give one for each."
        )
