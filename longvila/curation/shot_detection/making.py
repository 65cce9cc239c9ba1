"""Which detector a setting means."""

from __future__ import annotations

from longvila.config.footage import ShotConfig
from longvila.curation.shot_detection.boundary import Detector
from longvila.media.probe import Probe

_LONG_SIDE = 160  # of the picture in which PySceneDetect looks for cuts
_THRESHOLDS = {"adaptive": 3.0, "content": 27.0, "transnetv2": 0.5}


def make_detector(config: ShotConfig, facts: Probe) -> Detector:
    """Make the detector for one video.

    Raises ``MachineError`` when the network's package is missing and the detector needs it from the start.
    """
    threshold = config.threshold or _THRESHOLDS.get(config.detector, 0.0)
    if config.detector == "cascade":
        from longvila.curation.shot_detection.cascade import Cascade

        return Cascade(fps=facts.fps)
    if config.detector == "transnetv2":
        from longvila.curation.shot_detection.whole_network import WholeNetwork

        return WholeNetwork(threshold=threshold)
    from longvila.curation.shot_detection.pyscenedetect import PySceneDetect

    scale = _LONG_SIDE / max(facts.width, facts.height)
    shape = (max(8, round(facts.height * scale)), max(8, round(facts.width * scale)))
    return PySceneDetect(
        config.detector,
        threshold=threshold,
        min_shot_s=config.min_shot_s,
        fps=facts.fps,
        times_F=facts.times_s,
        picture_shape=shape,
    )
