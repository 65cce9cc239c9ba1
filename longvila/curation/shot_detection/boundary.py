"""What every detector takes and gives.

H × W pixels. Frames are counted from 0 in the order in which they are shown.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np

Transition = Literal["cut", "fade", "dissolve"]


class Boundary(NamedTuple):
    """Two shots meet: ``last_old`` is wholly of the old one, ``first_new`` wholly of the new one.

    For a cut they are neighbours; between those of a fade or a dissolve lie the mixed frames.
    """

    last_old: int
    first_new: int
    transition: Transition
    score: float

    @property
    def frame(self) -> int:
        """The first frame of the new shot: after a cut, or in the middle of a gradual transition.

        The middle lies inside the transition whoever marks its ends, as matching by overlap (TRECVID) asks.
        """
        return (self.last_old + self.first_new + 1) // 2


class Detector(Protocol):
    """Takes the frames of one video in order, small, and knows its boundaries at the end."""

    picture_shape: tuple[int, int]  # (height, width) of what ``add`` wants

    def add(self, picture_HW3: np.ndarray) -> None:
        """Take the next frame, RGB uint8."""
        ...

    def boundaries(self) -> list[Boundary]:
        """Return the boundaries of all frames taken, in order. Called once, after the last frame."""
        ...
