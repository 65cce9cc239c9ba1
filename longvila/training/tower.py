"""A small classification run that prepares a vision tower which has no pre-trained weights.

It stands in for SigLIP's pre-training, so that a miniature can go through the five stages: the tower learns
to tell apart what the questions will be about. One process, plain torch, short enough to be started again.

What it can learn in seconds depends on how things lie on the patches. Measured with handwritten digits on
16-pixel cards in frames of 32, 8,000 frames, width 64, 300 steps of 128 (6 s on one core), held-out digits:
patches of 16 with cards on the grid 98 %, the same with cards up to 2 pixels off it 82 %, patches of 8 with
cards on the grid 91 %, cards anywhere 25 % (500 steps). Colours are learned in all cases.
"""

# N frames, b frames of a batch, P patches of a frame, C tower width, c classes.

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SiglipVisionModel

from longvila.config.model import VisionConfig
from longvila.config.stage import OptimizerConfig
from longvila.errors import InputError
from longvila.model.build import build_tower
from longvila.model.preprocess import normalise
from longvila.model.vision import select_features, used_parameters
from longvila.text.encode import IGNORE_INDEX
from longvila.training.stages import schedule_factor

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 512

Frames = NDArray[np.uint8]
Labels = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class TowerReport:
    """How the run went. Accuracies are by head, over the frames that have a label for it."""

    steps: int
    final_loss: float
    train_accuracy: dict[str, float]
    heldout_accuracy: dict[str, float]
    num_train: int
    num_heldout: int


class Head(nn.Module):
    """One linear classifier on the mean of the patches, and one on each patch, the best of which speaks."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.whole = nn.Linear(width, num_classes)
        self.patch = nn.Linear(width, num_classes)

    def forward(self, features_bPC: Tensor) -> Tensor:
        """Return logits [b, c]."""
        features_bPC = self.norm(features_bPC)
        whole_bc = self.whole(features_bPC.mean(dim=1))
        return whole_bc + torch.logsumexp(self.patch(features_bPC), dim=1)


class Classifier(nn.Module):
    """A tower read at ``select_layer``, as the LLM will read it, with one head for each kind of label."""

    def __init__(
        self, tower: SiglipVisionModel, num_classes: Mapping[str, int], *, select_layer: int
    ) -> None:
        super().__init__()
        self.tower = tower
        self.select_layer = select_layer
        width = tower.config.hidden_size
        self.heads = nn.ModuleDict({name: Head(width, count) for name, count in num_classes.items()})

    def forward(self, frames_bHW3: Tensor) -> dict[str, Tensor]:
        """Return logits [b, c] by head, for frames as bytes."""
        features_bPC = select_features(self.tower, normalise(frames_bHW3), select_layer=self.select_layer)
        return {name: head(features_bPC) for name, head in self.heads.items()}

    def trained(self) -> list[nn.Parameter]:
        """Return what gets a gradient: not the tower's layers beyond ``select_layer``."""
        return [*used_parameters(self.tower, self.select_layer), *self.heads.parameters()]


def prepare_tower(
    vision: VisionConfig,
    frames_NHW3: Frames,
    labels: Labels,
    *,
    steps: int,
    batch_size: int,
    optimizer: OptimizerConfig,
    seed: int,
    heldout_share: float = 0.1,
    on_step: Callable[[int, float], None] | None = None,
) -> tuple[SiglipVisionModel, TowerReport]:
    """Train a tower from scratch to classify frames; the same arguments give the same weights.

    ``labels`` holds classes from 0 for each head, ``IGNORE_INDEX`` where a frame has none. A share of the
    frames, drawn by ``seed``, is held out and only measured. ``on_step`` hears (step, loss).
    Raises ``InputError`` for frames or labels that do not fit together.
    """
    _check(vision, frames_NHW3, labels)
    frames = torch.from_numpy(frames_NHW3)
    targets = {name: torch.from_numpy(np.asarray(values, dtype=np.int64)) for name, values in labels.items()}
    train_n, heldout_n = _divide(len(frames), heldout_share, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        counts = {name: int(values.max()) + 1 for name, values in targets.items()}
        model = Classifier(build_tower(vision), counts, select_layer=vision.select_layer)
    loss = _train(
        model,
        frames,
        targets,
        train_n,
        steps=steps,
        batch_size=batch_size,
        optimizer=optimizer,
        seed=seed,
        on_step=on_step,
    )
    report = TowerReport(
        steps=steps,
        final_loss=loss,
        train_accuracy=measure(model, frames, targets, train_n[: len(heldout_n)]),
        heldout_accuracy=measure(model, frames, targets, heldout_n),
        num_train=len(train_n),
        num_heldout=len(heldout_n),
    )
    logger.info("tower prepared in %d steps, held-out accuracy %s", steps, report.heldout_accuracy)
    return model.tower.eval(), report


@torch.no_grad()
def measure(
    model: Classifier, frames_NHW3: Tensor, targets: Mapping[str, Tensor], numbers_n: Tensor
) -> dict[str, float]:
    """Return each head's accuracy over the given frames that have a label for it; no label, no entry."""
    right: dict[str, int] = dict.fromkeys(targets, 0)
    total: dict[str, int] = dict.fromkeys(targets, 0)
    for numbers_b in numbers_n.split(EVALUATION_BATCH):
        for name, logits_bc in model(frames_NHW3[numbers_b]).items():
            target_b = targets[name][numbers_b]
            right[name] += int((logits_bc.argmax(dim=-1) == target_b).sum())
            total[name] += int((target_b != IGNORE_INDEX).sum())
    return {name: right[name] / total[name] for name in targets if total[name]}


def _train(
    model: Classifier,
    frames_NHW3: Tensor,
    targets: Mapping[str, Tensor],
    numbers_n: Tensor,
    *,
    steps: int,
    batch_size: int,
    optimizer: OptimizerConfig,
    seed: int,
    on_step: Callable[[int, float], None] | None,
) -> float:
    """Train and return the mean loss of the last tenth of the steps."""
    trained = model.trained()
    rate = optimizer.part_learning_rates.get("vision_tower", optimizer.learning_rate)
    adam = torch.optim.AdamW(trained, betas=optimizer.betas, weight_decay=optimizer.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for step in range(steps):
        factor = schedule_factor(step, total_steps=steps, optimizer=optimizer)
        for group in adam.param_groups:
            group["lr"] = rate * factor
        picked = torch.randint(len(numbers_n), (batch_size,), generator=generator)
        numbers_b = numbers_n[picked]
        loss = classification_loss(
            model(frames_NHW3[numbers_b]), {name: values[numbers_b] for name, values in targets.items()}
        )
        loss.backward()
        if optimizer.grad_clip > 0:
            nn.utils.clip_grad_norm_(trained, optimizer.grad_clip)
        adam.step()
        adam.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if on_step is not None:
            on_step(step, losses[-1])
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def classification_loss(logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """Return the sum over heads of the mean loss over labelled frames; a head without any adds zero."""
    total = torch.zeros(())
    for name, logits_bc in logits.items():
        summed = F.cross_entropy(logits_bc, targets[name], ignore_index=IGNORE_INDEX, reduction="sum")
        total = total + summed / (targets[name] != IGNORE_INDEX).sum().clamp(min=1)
    return total


def _divide(count: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    num_heldout = int(count * share)
    return order[num_heldout:], order[:num_heldout]


def _check(vision: VisionConfig, frames: Frames, labels: Labels) -> None:
    wanted = (vision.image_size, vision.image_size, 3)
    if frames.dtype != np.uint8 or frames.shape[1:] != wanted or len(frames) < 2:
        raise InputError(
            f"The tower needs two or more uint8 frames of {wanted}; got {frames.dtype} {frames.shape}. "
            "Decode them with size=vision.image_size."
        )
    if not labels:
        raise InputError("The tower has no labels to learn from. Give at least one head.")
    for name, values in labels.items():
        known = np.asarray(values)[np.asarray(values) != IGNORE_INDEX]
        if len(values) != len(frames) or not len(known) or known.min() < 0:
            raise InputError(
                f"The labels of head {name!r} do not fit: {len(values)} for {len(frames)} frames, "
                f"{len(known)} of them set. Give one class from 0 for each frame, {IGNORE_INDEX} for none."
            )
