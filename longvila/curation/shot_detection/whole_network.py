"""TransNetV2 over every frame: the published way, ten times the cost of decoding.

T frames of a window, F frames of the video.
"""

from __future__ import annotations

import numpy as np

from longvila.curation.shot_detection.boundary import Boundary
from longvila.curation.shot_detection.network import INPUT_SHAPE, TransNetV2, shared_network
from longvila.curation.shot_detection.runs import SURE, network_boundaries

WINDOW = 100
MARGIN = 25  # frames at either end of a window that see too little


class WholeNetwork:
    """Windows of 100 frames, every 50: of each the 50 in the middle count."""

    picture_shape: tuple[int, int] = INPUT_SHAPE

    def __init__(self, *, threshold: float = SURE, network: TransNetV2 | None = None) -> None:
        self._network = network or shared_network()
        self._threshold = threshold
        self._window: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._spreads: list[float] = []

    def add(self, picture_HW3: np.ndarray) -> None:
        """Take the next frame."""
        if not self._window:
            self._window = [picture_HW3] * MARGIN
        self._window.append(picture_HW3)
        self._spreads.append(float(picture_HW3.std()))
        self._run()

    def boundaries(self) -> list[Boundary]:
        """Score the last frames and return the boundaries."""
        num_frames = len(self._spreads)
        if not num_frames:
            return []
        for _ in range(WINDOW - MARGIN):
            self._window.append(self._window[-1])
            self._run()
        is_last_F, in_transition_F = np.concatenate(self._scores, axis=1)[:, :num_frames]
        return network_boundaries(
            is_last_F, in_transition_F, np.asarray(self._spreads), threshold=self._threshold
        )

    def _run(self) -> None:
        if len(self._window) == WINDOW:
            scores = self._network.scores(np.stack(self._window))
            self._scores.append(np.stack(scores)[:, MARGIN:-MARGIN])
            self._window = self._window[WINDOW - 2 * MARGIN :]
