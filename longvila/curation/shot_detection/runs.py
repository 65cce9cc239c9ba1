"""From the network's scores to boundaries.

F frames.
"""

from __future__ import annotations

import numpy as np

from longvila.curation.shot_detection.boundary import Boundary, Transition

SURE = 0.5  # of the network's scores, as published
MONOCHROME = 6.0  # standard deviation of a picture's pixels, of 255, below which it shows nothing
_CUT_FRAMES = 3  # a transition that seems no longer is a cut


def network_boundaries(
    is_last_F: np.ndarray, in_transition_F: np.ndarray, spreads_F: np.ndarray, *, threshold: float = SURE
) -> list[Boundary]:
    """Make a boundary of every run of frames that the network takes for the last of a shot."""
    found = []
    for start, stop in spans(is_last_F > threshold):
        first, last = _grown(in_transition_F > SURE, start, stop)
        is_cut = last - first <= _CUT_FRAMES
        if is_cut:
            best = start + int(is_last_F[start:stop].argmax())
            first, last = best, best + 1
        if last >= len(is_last_F):  # the video ends inside: no shot follows
            continue
        has_blank = bool((spreads_F[first : last + 1] < MONOCHROME).any())
        kind: Transition = "cut" if is_cut else "fade" if has_blank else "dissolve"
        found.append(Boundary(first, last, kind, float(is_last_F[start:stop].max())))
    return found


def spans(flags_F: np.ndarray) -> list[tuple[int, int]]:
    """Return the half-open spans in which ``flags_F`` holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags_F.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _grown(flags_F: np.ndarray, start: int, stop: int) -> tuple[int, int]:
    """Widen ``[start, stop)`` as far as ``flags_F`` holds next to it."""
    while start > 0 and flags_F[start - 1]:
        start -= 1
    while stop < len(flags_F) and flags_F[stop]:
        stop += 1
    return start, stop
