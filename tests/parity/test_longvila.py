"""LongVILA over many ranks, replicas and micro-steps against one process that reads one document at a time.

Every parameter's gradient is compared, tower and projector included, on rows with many frames, with fewer
frames than ranks, and with none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longvila.config.model import LlmConfig, ModelConfig, ProjectorConfig, VisionConfig
from longvila.model import LongVila, build_model
from longvila.model.module import identity_exchange
from longvila.parallel import (
    IGNORE_INDEX,
    Groups,
    chunked_cross_entropy,
    for_data_parallel,
    make_attend,
    make_exchange,
    make_groups,
    make_plan,
    register_attention,
    shift_labels,
)
from tests.distributed import run_ranks
from tests.parity.models import gradients, largest_error, with_exact_norms

TOLERANCE = 1e-8
VOCABULARY = 23
CONFIG = ModelConfig(
    vision=VisionConfig(
        image_size=16, patch_size=4, hidden_size=12, intermediate_size=16, num_layers=3, num_heads=2
    ),
    projector=ProjectorConfig(),
    llm=LlmConfig(hidden_size=24, intermediate_size=32, num_layers=2, num_heads=6, num_kv_heads=2),
    frame_separator=None,
)
PER_FRAME = CONFIG.tokens_per_frame
TRAINED = {"all": ("vision_tower", "projector", "llm"), "projector": ("projector",), "llm": ("llm",)}


@dataclass(frozen=True)
class Document:
    """Ids and labels (not shifted) of one document, where its frames sit, and their pixels."""

    ids: Tensor
    labels: Tensor
    seats: np.ndarray
    frames: Tensor


def make_rows() -> list[list[Document]]:
    """Four packed rows of documents, given by their numbers of frames: many, none, one, some."""
    generator = torch.Generator().manual_seed(4)
    rows = [[5, 0, 2], [0], [1], [0, 3, 0]]
    return [[make_document(frames, generator) for frames in row] for row in rows]


def make_document(num_frames: int, generator: torch.Generator) -> Document:
    text = int(torch.randint(3, 12, (1,), generator=generator))
    length = text + num_frames * (PER_FRAME + 1)
    seats = np.arange(num_frames) * (PER_FRAME + 1) + 1
    ids = torch.randint(VOCABULARY, (length,), generator=generator)
    labels = ids.masked_fill(torch.arange(length) < length - text // 2 - 1, IGNORE_INDEX)
    return Document(ids, labels, seats, torch.randn(num_frames, 3, 16, 16, generator=generator).double())


def make_model(trained: str) -> LongVila:
    model = build_model(CONFIG, vocab_size=VOCABULARY, seed=3, dtype=torch.float64)
    with_exact_norms(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(TRAINED[trained]))
    return model.train()


def total_scored(rows: Iterable[list[Document]]) -> int:
    return sum(int((document.labels[1:] != IGNORE_INDEX).sum()) for row in rows for document in row)


def plain_attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float, **_: object) -> Tensor:
    """Attention of one document on one process, torch's own."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True).transpose(
        1, 2
    )


def on_one_process(trained: str) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean loss over all scored tokens of all rows, document by document, and its gradients."""
    register_attention()
    model, rows = make_model(trained), make_rows()
    losses = []
    for document in [document for row in rows for document in row]:
        seats = torch.from_numpy((document.seats[:, None] + np.arange(PER_FRAME)).reshape(-1))
        hidden = model(
            document.ids[None],
            torch.arange(len(document.ids))[None],
            document.frames,
            seats,
            attend=plain_attend,
            exchange=identity_exchange,
        )
        logits = model.lm_head(hidden[0, :-1])
        losses.append(
            F.cross_entropy(logits, document.labels[1:], ignore_index=IGNORE_INDEX, reduction="sum")
        )
    loss = torch.stack(losses).sum() / total_scored(rows)
    loss.backward()
    return loss.detach(), gradients(model)


def row_loss(model: LongVila, row: list[Document], groups: Groups) -> Tensor:
    """This rank's part of one row: its frames, its tokens, its summed loss."""
    lengths = [len(document.ids) for document in row]
    starts = np.cumsum([0, *lengths[:-1]])
    plan = make_plan(
        lengths,
        np.concatenate([document.seats + start for document, start in zip(row, starts, strict=True)]),
        tokens_per_frame=PER_FRAME,
        ulysses_degree=groups.ulysses_degree,
        ring_degree=groups.ring_degree,
    )
    mine, padding = plan.layout.positions_of(groups.sp_rank), (0, plan.layout.padded_length - sum(lengths))
    ids = F.pad(torch.cat([document.ids for document in row]), padding)[mine]
    labels = shift_labels(torch.cat([document.labels for document in row]), plan.layout.cu_seqlens)
    frames = torch.cat([document.frames for document in row])[plan.frames_of(groups.sp_rank)]
    hidden = model(
        ids[None],
        torch.from_numpy(plan.layout.position_ids()[mine])[None],
        frames,
        torch.from_numpy(plan.local_seats(groups.sp_rank)),
        attend=make_attend(plan, groups),
        exchange=make_exchange(plan, groups),
    )
    own_labels = F.pad(labels, padding, value=IGNORE_INDEX)[mine]
    return chunked_cross_entropy(hidden[0], own_labels, model.lm_head, chunk=3).loss_sum


def on_rank(
    _rank: int, ulysses_degree: int, ring_degree: int, trained: str, checkpointing: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """One optimizer step as an engine sees it: micro-steps, then gradients averaged over the world."""
    register_attention()
    groups = make_groups(ulysses_degree=ulysses_degree, ring_degree=ring_degree)
    model, rows = make_model(trained), make_rows()
    if checkpointing:
        model.enable_gradient_checkpointing()
    total = torch.zeros((), dtype=torch.float64)
    for row in rows[groups.dp_rank :: groups.dp_size]:
        loss = row_loss(model, row, groups)
        loss = for_data_parallel(loss, total_scored=total_scored(rows), world_size=groups.world_size)
        loss.backward()
        total += loss.detach() / groups.world_size
    found = gradients(model)
    assert len({tuple(names) for names in groups.world.gather_objects(list(found))}) == 1
    mean = {name: groups.world.all_reduce(grad) / groups.world_size for name, grad in found.items()}
    return groups.world.all_reduce(total), mean


@pytest.mark.parametrize("trained", list(TRAINED))
@pytest.mark.parametrize(("ulysses_degree", "ring_degree"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)])
def test_four_ranks_train_as_one(ulysses_degree: int, ring_degree: int, trained: str) -> None:
    wanted_loss, wanted = on_one_process(trained)
    for loss, found in run_ranks(on_rank, 4, ulysses_degree, ring_degree, trained, False):
        torch.testing.assert_close(loss, wanted_loss, rtol=TOLERANCE, atol=0)
        error, name = largest_error(found, wanted)
        assert error <= TOLERANCE, name


def test_four_ranks_train_as_one_with_checkpointing() -> None:
    wanted_loss, wanted = on_one_process("all")
    for loss, found in run_ranks(on_rank, 4, 2, 2, "all", True):
        torch.testing.assert_close(loss, wanted_loss, rtol=TOLERANCE, atol=0)
        error, name = largest_error(found, wanted)
        assert error <= TOLERANCE, name
