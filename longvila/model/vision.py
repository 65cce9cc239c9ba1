"""The vision tower, run only as far as its features are read.

VILA takes the last but one hidden state (``select_layer`` −2). The layers after it, the last norm and the
pooling head are kept in checkpoints, but never run and never trained.
"""

# f frames held here, P patches of a frame, C tower width.

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import SiglipVisionModel

from longvila.errors import ConfigError


def num_layers_run(tower: SiglipVisionModel, select_layer: int) -> int:
    """Return how many encoder layers give hidden state ``select_layer`` (0 is the embeddings' output)."""
    total = tower.config.num_hidden_layers
    hidden_state = select_layer if select_layer >= 0 else total + 1 + select_layer
    if not 0 <= hidden_state <= total:
        raise ConfigError(
            f"select_layer={select_layer} does not exist in a tower of {total} layers. "
            f"Use one of {-total - 1} to {total}; the published models use -2."
        )
    return hidden_state


def select_features(tower: SiglipVisionModel, frames_f3HW: Tensor, *, select_layer: int) -> Tensor:
    """Return hidden state ``select_layer`` [f, P, C] of normalised frames.

    Frames of another size than the tower's own get its position embeddings interpolated.
    """
    embeddings, layers = _parts_run(tower, select_layer)
    side = single_side(tower.config.image_size)
    resized = tuple(frames_f3HW.shape[2:]) != (side, side)
    hidden_fPC = embeddings(frames_f3HW, interpolate_pos_encoding=resized)
    for layer in layers:
        hidden_fPC = layer(hidden_fPC, attention_mask=None)
    return hidden_fPC


def passes_of(sizes: Sequence[Sequence[int]], frames_at_once: int | None = None) -> list[list[int]]:
    """Divide frames of given sizes into passes through the tower: which frames go through together.

    A pass holds frames of one size, at most ``frames_at_once`` of them (by default all).
    """
    of_size: dict[tuple[int, ...], list[int]] = {}
    for i, size in enumerate(sizes):
        of_size.setdefault(tuple(size), []).append(i)
    step = frames_at_once or max(len(sizes), 1)
    return [members[i : i + step] for members in of_size.values() for i in range(0, len(members), step)]


def used_parameters(tower: SiglipVisionModel, select_layer: int) -> list[nn.Parameter]:
    """Return the parameters that the features depend on."""
    embeddings, layers = _parts_run(tower, select_layer)
    return [parameter for module in (embeddings, *layers) for parameter in module.parameters()]


def _parts_run(tower: SiglipVisionModel, select_layer: int) -> tuple[nn.Module, list[nn.Module]]:
    body = tower_body(tower)
    layers = list(body.get_submodule("encoder.layers").children())
    return body.get_submodule("embeddings"), layers[: num_layers_run(tower, select_layer)]


def single_side(size: int | list[int] | tuple[int, ...]) -> int:
    """Return the side of a square given as transformers' configurations allow it: one number or a pair."""
    if isinstance(size, int):
        return size
    if len(set(size)) != 1:
        raise ConfigError(
            f"The tower takes frames or patches of {tuple(size)} pixels. Use one with square ones."
        )
    return size[0]


def tower_body(tower: SiglipVisionModel) -> nn.Module:
    """Return the module that holds embeddings and layers: older transformers wrap it as ``vision_model``."""
    wrapped = getattr(tower, "vision_model", None)
    return wrapped if isinstance(wrapped, nn.Module) else tower
