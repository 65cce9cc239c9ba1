"""How one sample's picture became the next: the camera's part of the motion, and what moves apart from it.

Dense flow between two small pictures is explained by one shift and one change of size, fitted to the detailed
parts of the picture; what that leaves over, and what the pictures themselves bear out, is a mover.
H × W pixels, N points of the fit. Lengths are in picture widths; x goes right, y goes down.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

EVERY = 2  # samples: each second one is compared with the one before, which is enough and costs half
_SAME = 0.3  # of 255 levels, by which two pictures differ that show no motion at all
_STEP = 5  # pixels between two points of the fit
_DETAIL = 0.02  # luma step per pixel, beside which flow can be trusted
_MIN_POINTS = 40
_ROUNDS = 3
_SPREAD = 5  # of nine cells that have to agree, or it is not the camera
_CELL_POINTS = 3
_FITS_PX = 0.75
_APART_PX = 1.0  # of the flow from the camera's, and this share of the camera's own
_APART_SHARE = 0.25
_WRONG = 0.035  # luma, that the camera's motion leaves unexplained where something moves
_EXPLAINED = 0.5  # of which the flow leaves less than this share
_BLOCK = 4  # pixels
_MIN_AREA = 0.003  # of the picture


class Camera(NamedTuple):
    """The motion that fits the detailed parts of the picture."""

    right: float  # of the picture
    down: float
    growth: float  # of the picture's size, e.g. 0.01 when all lengths grow by a hundredth
    fit: float  # share of the detailed points that move so; 0 when they are few or all on one side


class Mover(NamedTuple):
    """The largest thing that moves apart from the camera; all 0 when there is none."""

    area: float  # of the picture, of what is seen to move
    box: float  # of the picture, the area of the rectangle around it
    x: float  # of its middle, 0 left to 1 right
    y: float  # 0 top to 1 bottom
    right: float  # against the background
    down: float
    unity: float  # 0 to 1: how much of all that moves it is, times how much it moves as one


class Movement(NamedTuple):
    """What happened between two samples."""

    camera: Camera
    mover: Mover


NOTHING = Mover(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
NOT_KNOWN = Movement(Camera(0.0, 0.0, 0.0, 0.0), NOTHING)
STILL = Movement(Camera(0.0, 0.0, 0.0, 1.0), NOTHING)


class Tracker:
    """Compares every second picture with the one before it."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._last_HW: np.ndarray | None = None
        self._count = 0

    def add(self, grey_HW: np.ndarray) -> Movement:
        """Take the next picture, uint8 luma; one that is not compared gives ``NOT_KNOWN``."""
        last_HW, self._last_HW = self._last_HW, grey_HW
        self._count += 1
        if self._count % EVERY or last_HW is None or last_HW.shape != grey_HW.shape:
            return NOT_KNOWN
        if cv2.norm(last_HW, grey_HW, cv2.NORM_L1) < _SAME * grey_HW.size:
            return STILL
        flow_HW2 = self._flow.calc(last_HW, grey_HW, None)  # type: ignore[call-overload]
        camera, model_HW2 = _camera(last_HW, flow_HW2)
        if camera.fit == 0.0:
            return Movement(camera, NOTHING)
        return Movement(camera, _mover(last_HW, grey_HW, flow_HW2, model_HW2))


def _camera(last_HW: np.ndarray, flow_HW2: np.ndarray) -> tuple[Camera, np.ndarray]:
    """Fit a shift and a change of size; return them, and the flow that they make of the whole picture."""
    height, width = last_HW.shape
    y_N, x_N = _detailed_points(last_HW)
    if len(x_N) < _MIN_POINTS:
        return NOT_KNOWN.camera, flow_HW2
    flow_N2 = flow_HW2[y_N, x_N]
    place_N2 = np.empty_like(flow_N2)
    place_N2[:, 0], place_N2[:, 1] = x_N - (width - 1) / 2, y_N - (height - 1) / 2
    middle = len(x_N) // 2
    shift_2, growth = np.partition(flow_N2, middle, axis=0)[middle], 0.0
    for _ in range(_ROUNDS):
        error_N = _squared(flow_N2 - shift_2 - growth * place_N2)
        inside_N = error_N <= max(0.25, 2.25 * float(np.partition(error_N, middle)[middle]))
        shift_2, growth = _fit(flow_N2[inside_N], place_N2[inside_N])
    fits_N = _squared(flow_N2 - shift_2 - growth * place_N2) < _FITS_PX**2
    spread = _spread(x_N[fits_N] / width, y_N[fits_N] / height)
    fit = np.count_nonzero(fits_N) / len(fits_N) if spread >= _SPREAD else 0.0
    model_HW2 = np.empty_like(flow_HW2)
    model_HW2[..., 0] = (np.arange(width) - (width - 1) / 2) * growth + shift_2[0]
    model_HW2[..., 1] = ((np.arange(height) - (height - 1) / 2) * growth + shift_2[1])[:, None]
    return Camera(float(shift_2[0]) / width, float(shift_2[1]) / width, growth, fit), model_HW2


def _detailed_points(last_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of grid points with enough detail around them, int [N] each."""
    across = cv2.absdiff(last_HW[:, 1:], last_HW[:, :-1])[:-1]
    down = cv2.absdiff(last_HW[1:], last_HW[:-1])[:, :-1]
    steps = cv2.blur(cv2.max(across, down), (5, 5))[_STEP::_STEP, _STEP::_STEP]
    rows, columns = np.nonzero(steps > _DETAIL * 255)
    return (rows + 1) * _STEP, (columns + 1) * _STEP


def _squared(vectors_N2: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", vectors_N2, vectors_N2)


def _fit(flow_N2: np.ndarray, place_N2: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares of ``flow = shift + growth * place``."""
    count = len(flow_N2)
    middle_2, mean_2 = place_N2.sum(axis=0) / count, flow_N2.sum(axis=0) / count
    offset_N2 = place_N2 - middle_2
    growth = float(np.vdot(offset_N2, flow_N2)) / max(float(np.vdot(offset_N2, offset_N2)), 1e-9)
    return mean_2 - growth * middle_2, growth


def _spread(x_N: np.ndarray, y_N: np.ndarray) -> int:
    """In how many of nine cells there are points."""
    cells = np.minimum((x_N * 3).astype(int), 2) + 3 * np.minimum((y_N * 3).astype(int), 2)
    return int((np.bincount(cells, minlength=9) >= _CELL_POINTS).sum())


def _mover(last_HW: np.ndarray, grey_HW: np.ndarray, flow_HW2: np.ndarray, model_HW2: np.ndarray) -> Mover:
    """Find what moves apart from the camera, where the pictures bear it out."""
    height, width = last_HW.shape
    apart_HW2 = flow_HW2 - model_HW2
    apart_HW = cv2.magnitude(apart_HW2[..., 0], apart_HW2[..., 1])
    speed = float(np.linalg.norm(model_HW2[height // 2, width // 2]))
    moving_HW = apart_HW > max(_APART_PX, _APART_SHARE * speed)
    if moving_HW.mean() < _MIN_AREA:
        return NOTHING
    light = float(grey_HW.mean()) - float(last_HW.mean())
    unexplained_HW = _unexplained(last_HW, grey_HW, model_HW2, light)
    left_HW = _unexplained(last_HW, grey_HW, flow_HW2, light)
    moving_HW &= (unexplained_HW > _WRONG * 255) & (left_HW < _EXPLAINED * unexplained_HW)
    if moving_HW.mean() < _MIN_AREA:
        return NOTHING
    own_HW = _largest_part(moving_HW)
    y_P, x_P = np.nonzero(own_HW)
    if len(x_P) < _MIN_AREA * own_HW.size:
        return NOTHING
    apart_P2 = apart_HW2[own_HW]
    mean_2 = apart_P2.mean(axis=0)
    as_one = float(np.linalg.norm(mean_2) / np.linalg.norm(apart_P2, axis=1).mean())
    box = (x_P.max() - x_P.min() + 1) * (y_P.max() - y_P.min() + 1)
    return Mover(
        area=len(x_P) / own_HW.size,
        box=float(box) / own_HW.size,
        x=float(x_P.mean()) / width,
        y=float(y_P.mean()) / height,
        right=float(mean_2[0]) / width,
        down=float(mean_2[1]) / width,
        unity=as_one * len(x_P) / int(moving_HW.sum()),
    )


def _largest_part(moving_HW: np.ndarray) -> np.ndarray:
    """Return the largest group of moving pixels; those of neighbouring blocks belong together."""
    height, width = moving_HW.shape
    size = (-(-width // _BLOCK), -(-height // _BLOCK))
    share_hw = cv2.resize(moving_HW.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    _, labels_hw = cv2.connectedComponents((share_hw > 0).astype(np.uint8), connectivity=8)
    weights = np.bincount(labels_hw.ravel(), weights=share_hw.ravel())
    largest_hw = (labels_hw == int(weights[1:].argmax()) + 1).astype(np.uint8)
    return moving_HW & (cv2.resize(largest_hw, (width, height), interpolation=cv2.INTER_NEAREST) > 0)


def _unexplained(last_HW: np.ndarray, grey_HW: np.ndarray, flow_HW2: np.ndarray, light: float) -> np.ndarray:
    """Return how much the new picture differs from the old one moved by ``flow``, float32 [H, W]."""
    height, width = last_HW.shape
    x_HW = np.arange(width, dtype=np.float32)[None, :] + flow_HW2[..., 0]
    y_HW = np.arange(height, dtype=np.float32)[:, None] + flow_HW2[..., 1]
    moved_HW = cv2.remap(grey_HW, x_HW, y_HW, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    error_HW = np.abs(moved_HW.astype(np.float32) - last_HW.astype(np.float32) - light)
    return cv2.blur(error_HW, (3, 3))
