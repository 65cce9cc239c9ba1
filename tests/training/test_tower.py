"""Preparing a tower on pictures that are easy to tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from longvila.config.model import VisionConfig
from longvila.config.stage import OptimizerConfig
from longvila.errors import InputError
from longvila.model.vision import select_features, used_parameters
from longvila.text import IGNORE_INDEX
from longvila.training.tower import TowerReport, classification_loss, prepare_tower

VISION = VisionConfig(
    image_size=32, patch_size=16, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2
)
COLOURS = np.array([[220, 30, 30], [30, 200, 30], [40, 60, 230], [230, 220, 40]], dtype=np.uint8)


def cards(count: int, *, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Grey with a card of one of four colours in one of four places; the last quarter has no card."""
    rng = np.random.default_rng(seed)
    frames = np.repeat(rng.integers(100, 140, (count, 32, 32, 1), dtype=np.uint8), 3, axis=-1)
    colours, places = rng.integers(4, size=count), rng.integers(4, size=count)
    bare = np.arange(count) >= count * 3 // 4
    for number in np.flatnonzero(~bare):
        top, left = divmod(int(places[number]), 2)
        frames[number, 16 * top : 16 * top + 16, 16 * left : 16 * left + 16] = COLOURS[colours[number]]
    places[bare], colours[bare] = IGNORE_INDEX, IGNORE_INDEX
    return frames, {"colour": colours, "place": places, "card": bare.astype(np.int64)}


def prepare(**changes: Any) -> tuple[torch.nn.Module, TowerReport]:
    frames, labels = cards(1600)
    settings: dict[str, Any] = {
        "steps": 120,
        "batch_size": 64,
        "optimizer": OptimizerConfig(learning_rate=3e-3),
        "seed": 0,
        **changes,
    }
    return prepare_tower(VISION, frames, labels, **settings)


def test_it_learns_and_reports_on_frames_it_never_saw() -> None:
    losses: list[float] = []
    tower, report = prepare(on_step=lambda _, loss: losses.append(loss))
    assert (report.num_train, report.num_heldout, report.steps) == (1440, 160, 120)
    assert min(report.heldout_accuracy.values()) > 0.97, report
    assert set(report.heldout_accuracy) == {"colour", "place", "card"}
    assert len(losses) == 120
    assert report.final_loss == pytest.approx(sum(losses[-12:]) / 12)
    assert report.final_loss < 0.2 * losses[0]
    features = select_features(tower, torch.zeros(1, 3, 32, 32), select_layer=VISION.select_layer)
    assert features.shape == (1, 4, 32)


def test_the_seed_decides_the_weights() -> None:
    (first, _), (again, _), (other, _) = prepare(steps=3), prepare(steps=3), prepare(steps=3, seed=1)
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert any(not torch.equal(other.state_dict()[name], value) for name, value in first.state_dict().items())


def test_only_what_is_read_is_trained() -> None:
    before, after = prepare(steps=1, optimizer=OptimizerConfig(learning_rate=1e-9))[0], prepare(steps=5)[0]
    read = {id(parameter) for parameter in used_parameters(after, VISION.select_layer)}
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        if id(new) not in read:
            assert torch.equal(old, new), name


def test_frames_without_a_label_for_a_head_do_not_count() -> None:
    logits = {"a": torch.randn(4, 3, requires_grad=True), "b": torch.randn(4, 2, requires_grad=True)}
    targets = {"a": torch.tensor([0, 2, IGNORE_INDEX, IGNORE_INDEX]), "b": torch.full((4,), IGNORE_INDEX)}
    loss = classification_loss(logits, targets)
    expected = torch.nn.functional.cross_entropy(logits["a"][:2], targets["a"][:2])
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits["b"].grad is not None
    assert not logits["b"].grad.any()


@pytest.mark.parametrize(
    ("frames", "labels", "message"),
    [
        (np.zeros((8, 16, 16, 3), np.uint8), {"a": np.zeros(8, np.int64)}, "size=vision.image_size"),
        (np.zeros((8, 32, 32, 3), np.float32), {"a": np.zeros(8, np.int64)}, "uint8"),
        (np.zeros((8, 32, 32, 3), np.uint8), {}, "at least one head"),
        (np.zeros((8, 32, 32, 3), np.uint8), {"a": np.zeros(7, np.int64)}, "7 for 8 frames"),
        (np.zeros((8, 32, 32, 3), np.uint8), {"a": np.full(8, IGNORE_INDEX)}, "0 of them set"),
        (np.zeros((8, 32, 32, 3), np.uint8), {"a": np.full(8, -1)}, "one class from 0"),
    ],
)
def test_what_does_not_fit_is_refused(frames: np.ndarray, labels: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_tower(
            VISION,
            frames,
            labels,
            steps=1,
            batch_size=2,
            optimizer=OptimizerConfig(learning_rate=1e-3),
            seed=0,
        )
