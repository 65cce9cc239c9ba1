"""LongVILA over many ranks, replicas and micro-steps against one process that reads one document at a time.

Loss, logits and every parameter's gradient are compared, tower and projector included, on rows with many
frames, with fewer frames than ranks, with none, and with images of several sizes. Float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longvila.config.model import LlmConfig, ModelConfig, ProjectorConfig, VisionConfig
from longvila.model import LongVila, build_model
from longvila.model.module import Frames, identity_exchange
from longvila.model.rope import rebuild_rotary
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
    tile_tokens,
)
from tests.distributed import run_ranks
from tests.parity.models import CloningHost, gradients, largest_error, with_exact_norms

TOLERANCE = 1e-8
VOCABULARY = 23
VISION = VisionConfig(
    image_size=16, patch_size=4, hidden_size=12, intermediate_size=16, num_layers=3, num_heads=2
)
LLMS = {
    "6 heads": LlmConfig(hidden_size=24, intermediate_size=32, num_layers=2, num_heads=6, num_kv_heads=2),
    "28 heads": LlmConfig(hidden_size=56, intermediate_size=32, num_layers=2, num_heads=28, num_kv_heads=4),
}
TRAINED = {"all": ("vision_tower", "projector", "llm"), "projector": ("projector",), "llm": ("llm",)}
SIZES = ((16, 16), (8, 24), (20, 8))
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}


@dataclass(frozen=True)
class Case:
    """What is trained over how many ranks, and how."""

    world: int
    ulysses_degree: int = 1
    ring_degree: int = 1
    trained: str = "all"
    llm: str = "6 heads"
    several_sizes: bool = False
    dynamic_rope: bool = False
    head_groups: int = 0
    memory: str = ""  # which memory switches are on

    def __str__(self) -> str:
        changed = [
            f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default
        ]
        return ",".join(changed)


@dataclass(frozen=True)
class Document:
    """Ids and labels (not shifted) of one document, its frames: first seats, numbers of seats, pixels."""

    ids: Tensor
    labels: Tensor
    seats: np.ndarray
    tokens: np.ndarray
    frames: list[Tensor]


class Result(NamedTuple):
    """The mean loss, the summed logits per document, and the gradient of every parameter."""

    loss: Tensor
    logits: dict[int, Tensor]
    gradients: dict[str, Tensor]


def make_rows(case: Case) -> list[list[Document]]:
    """Eight packed rows of documents, given by their numbers of frames: many, none, one, some."""
    generator = torch.Generator().manual_seed(4)
    rows = [[5, 0, 2], [0], [1], [0, 3, 0], [0, 0], [2], [9], [0, 1, 0, 0]]
    sizes = SIZES if case.several_sizes else SIZES[:1]
    return [[make_document(frames, sizes, generator) for frames in row] for row in rows]


def make_document(num_frames: int, sizes: Sequence[tuple[int, int]], generator: torch.Generator) -> Document:
    chosen = [sizes[i % len(sizes)] for i in range(num_frames)]
    tokens = np.array([-(-height // 8) * -(-width // 8) for height, width in chosen], dtype=np.int64)
    seats = np.cumsum([1, *(tokens + 1)])[:-1]
    text = int(torch.randint(3, 12, (1,), generator=generator))
    length = text + int((tokens + 1).sum())
    ids = torch.randint(VOCABULARY, (length,), generator=generator)
    labels = ids.masked_fill(torch.arange(length) < length - text // 2 - 1, IGNORE_INDEX)
    frames = [torch.randn(3, *size, generator=generator).double() for size in chosen]
    return Document(ids, labels, seats, tokens, frames)


def as_given(frames: list[Tensor], case: Case) -> Frames | None:
    """Frames as the model takes them: one tensor, or a list where they differ in size."""
    return frames if case.several_sizes else torch.stack(frames) if frames else None


def make_model(case: Case) -> LongVila:
    config = ModelConfig(vision=VISION, projector=ProjectorConfig(), llm=LLMS[case.llm], frame_separator=None)
    model = build_model(config, vocab_size=VOCABULARY, seed=3, dtype=torch.float64)
    if case.dynamic_rope:
        model.llm.config.rope_parameters = DYNAMIC
        model.llm.config.max_position_embeddings = 12
        rebuild_rotary(model.llm)
    with_exact_norms(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(TRAINED[case.trained]))
    return model.train()


def total_scored(rows: Iterable[list[Document]]) -> int:
    return sum(int((document.labels[1:] != IGNORE_INDEX).sum()) for row in rows for document in row)


def plain_attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float, **_: object) -> Tensor:
    """Attention of one document on one process, torch's own."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True).transpose(
        1, 2
    )


def on_one_process(case: Case) -> Result:
    """The mean loss over all scored tokens of all rows, document by document, and its gradients."""
    register_attention()
    model, rows = make_model(case), make_rows(case)
    losses, all_logits = [], {}
    for number, row in enumerate(rows):
        of_row = []
        for document in row:
            if case.dynamic_rope:
                rebuild_rotary(model.llm)  # it would remember the longest document so far
            seats = [torch.arange(s, s + n) for s, n in zip(document.seats, document.tokens, strict=True)]
            hidden = model(
                document.ids[None],
                torch.arange(len(document.ids))[None],
                as_given(document.frames, case),
                torch.cat([torch.zeros(0, dtype=torch.int64), *seats]),
                attend=plain_attend,
                exchange=identity_exchange,
            )
            of_row.append(model.lm_head(hidden[0]))
            losses.append(
                F.cross_entropy(
                    of_row[-1][:-1], document.labels[1:], ignore_index=IGNORE_INDEX, reduction="sum"
                )
            )
        all_logits[number] = torch.cat(of_row).detach()
    loss = torch.stack(losses).sum() / total_scored(rows)
    loss.backward()
    return Result(loss.detach(), all_logits, gradients(model))


def row_loss(model: LongVila, row: list[Document], groups: Groups, case: Case) -> tuple[Tensor, Tensor]:
    """This rank's part of one row: its summed loss, and the logits of all ranks in the row's places."""
    lengths = [len(document.ids) for document in row]
    starts = np.cumsum([0, *lengths[:-1]])
    tokens = np.concatenate([document.tokens for document in row])
    plan = make_plan(
        lengths,
        np.concatenate([document.seats + start for document, start in zip(row, starts, strict=True)]),
        tokens_per_frame=tokens,
        patches_per_frame=4 * tokens,
        ulysses_degree=groups.ulysses_degree,
        ring_degree=groups.ring_degree,
    )
    mine, padding = plan.layout.positions_of(groups.sp_rank), (0, plan.layout.padded_length - sum(lengths))
    ids = F.pad(torch.cat([document.ids for document in row]), padding)[mine]
    labels = shift_labels(torch.cat([document.labels for document in row]), plan.layout.cu_seqlens)
    frames = [frame for document in row for frame in document.frames]
    hidden = model(
        ids[None],
        torch.from_numpy(plan.layout.position_ids()[mine])[None],
        as_given([frames[i] for i in plan.frames_of(groups.sp_rank)], case),
        torch.from_numpy(plan.local_seats(groups.sp_rank)),
        attend=make_attend(plan, groups, head_groups=case.head_groups),
        exchange=make_exchange(plan, groups),
        frames_at_once=2,
    )
    own_labels = F.pad(labels, padding, value=IGNORE_INDEX)[mine]
    logits = torch.zeros(plan.layout.padded_length, VOCABULARY, dtype=torch.float64)
    with torch.no_grad():
        logits[torch.from_numpy(mine)] = model.lm_head(hidden[0])
    loss = chunked_cross_entropy(hidden[0], own_labels, model.lm_head, chunk=3).loss_sum
    return loss, groups.sp.all_reduce(logits)[: sum(lengths)]


def on_rank(_rank: int, case: Case) -> Result:
    """One optimizer step as an engine sees it: micro-steps, then gradients averaged over the world."""
    register_attention()
    groups = make_groups(ulysses_degree=case.ulysses_degree, ring_degree=case.ring_degree)
    model, rows = make_model(case), make_rows(case)
    if "tiles" in case.memory:
        tile_tokens(model.llm, 3)
    if "checkpointing" in case.memory:
        host = CloningHost() if "host" in case.memory else None
        model.enable_gradient_checkpointing(keep_attention="twice" not in case.memory, host=host)
    total, logits = torch.zeros((), dtype=torch.float64), {}
    for number in range(groups.dp_rank, len(rows), groups.dp_size):
        loss, logits[number] = row_loss(model, rows[number], groups, case)
        loss = for_data_parallel(loss, total_scored=total_scored(rows), world_size=groups.world_size)
        loss.backward()
        total += loss.detach() / groups.world_size
    found = gradients(model)
    assert len({tuple(names) for names in groups.world.gather_objects(list(found))}) == 1
    mean = {name: groups.world.all_reduce(grad) / groups.world_size for name, grad in found.items()}
    return Result(groups.world.all_reduce(total), logits, mean)


def assert_train_as_one(case: Case) -> None:
    wanted = on_one_process(case)
    for result in run_ranks(on_rank, case.world, case):
        torch.testing.assert_close(result.loss, wanted.loss, rtol=TOLERANCE, atol=0)
        for number, logits in result.logits.items():
            torch.testing.assert_close(logits, wanted.logits[number], rtol=0, atol=TOLERANCE)
        error, name = largest_error(result.gradients, wanted.gradients)
        assert error <= TOLERANCE, name


@pytest.mark.parametrize(("ulysses_degree", "ring_degree"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)])
def test_four_ranks_train_as_one(ulysses_degree: int, ring_degree: int) -> None:
    assert_train_as_one(Case(4, ulysses_degree, ring_degree))


@pytest.mark.parametrize("trained", ["projector", "llm"])
@pytest.mark.parametrize(
    ("ulysses_degree", "ring_degree"),
    [(2, 2), *(pytest.param(*some, marks=pytest.mark.slow) for some in [(1, 1), (4, 1), (1, 4)])],
)
def test_four_ranks_train_a_part_as_one(ulysses_degree: int, ring_degree: int, trained: str) -> None:
    assert_train_as_one(Case(4, ulysses_degree, ring_degree, trained))


@pytest.mark.parametrize(
    ("world", "ulysses_degree", "ring_degree"),
    [(1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 1, 2), (8, 1, 1), (8, 2, 2), (8, 4, 2), (8, 2, 4)],
)
def test_one_to_eight_ranks_train_as_one(world: int, ulysses_degree: int, ring_degree: int) -> None:
    assert_train_as_one(Case(world, ulysses_degree, ring_degree))


@pytest.mark.parametrize(
    "case",
    [
        Case(4, 4, 1, llm="28 heads"),
        Case(8, 8, 1, llm="28 heads", head_groups=3),
        Case(8, 4, 2, llm="28 heads"),
        Case(4, 2, 2, several_sizes=True),
        Case(4, 1, 4, several_sizes=True, trained="projector"),
        Case(8, 2, 4, several_sizes=True, llm="28 heads"),
        Case(2, 1, 2, dynamic_rope=True),
        Case(4, 2, 2, dynamic_rope=True),
        Case(4, 2, 2, memory="checkpointing"),
        Case(4, 2, 2, memory="checkpointing twice"),
        Case(4, 2, 2, memory="checkpointing host tiles", head_groups=2, several_sizes=True),
        Case(4, 1, 2, memory="tiles", dynamic_rope=True),
    ],
    ids=str,
)
def test_every_way_of_training_is_as_one(case: Case) -> None:
    assert_train_as_one(case)
