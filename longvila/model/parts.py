"""The three parts of a model: which of them train, how large they are, which parameters are whose."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from longvila.config.stage import Part
from longvila.model.module import LongVila
from longvila.model.vision import used_parameters

PARTS: tuple[Part, ...] = ("vision_tower", "projector", "llm")


def part_of(name: str) -> Part:
    """Return which part a parameter of ``LongVila.named_parameters()`` belongs to."""
    for part in PARTS:
        if name.startswith(f"{part}."):
            return part
    raise KeyError(f"parameter {name!r} belongs to none of {PARTS}")


def set_trainable(model: LongVila, parts: Sequence[Part]) -> None:
    """Let ``parts`` train and freeze all else.

    What the features do not depend on (the tower's last layers, norm and head) stays frozen with any parts,
    so that every trainable parameter gets a gradient in every step.
    """
    model.requires_grad_(False)
    if "vision_tower" in parts:
        for parameter in used_parameters(model.vision_tower, model.select_layer):
            parameter.requires_grad_(True)
    if "projector" in parts:
        model.projector.requires_grad_(True)
    if "llm" in parts:
        model.llm.requires_grad_(True)


def trainable_parameters(model: LongVila) -> dict[Part, list[tuple[str, nn.Parameter]]]:
    """Return the parameters that train, by part, with their full names; parts without any are left out."""
    grouped: dict[Part, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            grouped.setdefault(part_of(name), []).append((name, parameter))
    return grouped


def count_parameters(model: LongVila, *, trainable: bool = False) -> dict[Part, int]:
    """Return how many parameters each part has, or has in training. Shared ones count once."""
    counts: dict[Part, int] = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or not trainable:
            counts[part_of(name)] += parameter.numel()
    return counts
