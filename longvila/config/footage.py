"""How a video is cut: shots, clips, and the frames that go into shards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from longvila.config.model import Settings


class ShotConfig(Settings):
    """Shot detection.

    ``cascade``: cheap signals of every frame, the TransNetV2 network where they leave a doubt.
    ``transnetv2``: the network over every frame.
    ``adaptive`` and ``content``: PySceneDetect's, for hard cuts and fades.
    """

    detector: Literal["cascade", "transnetv2", "adaptive", "content"] = "cascade"
    threshold: float | None = Field(
        default=None,
        gt=0,
        description="of the detector; unset: 3.0 for adaptive, 27 for content, 0.5 for the network; "
        "cascade has none",
    )
    min_shot_s: float = Field(default=0.2, gt=0, description="of two boundaries closer than that one is kept")

    @model_validator(mode="after")
    def _threshold_in_range(self) -> ShotConfig:
        if self.threshold is not None and self.detector == "cascade":
            raise ValueError(
                f"detector=cascade has no threshold, but threshold={self.threshold:g} is set. "
                "Leave it out, or choose another detector"
            )
        if self.detector == "transnetv2" and self.threshold is not None and self.threshold >= 1:
            raise ValueError(f"threshold={self.threshold:g} is not below 1, as detector=transnetv2 needs")
        return self


class ClipConfig(Settings):
    """How shots are joined into clips."""

    target_s: float = Field(default=10.0, gt=0)
    min_s: float = Field(default=1.0, gt=0, description="a shorter shot joins a neighbour")
    max_s: float = Field(default=20.0, gt=0, description="no clip is longer")

    @model_validator(mode="after")
    def _in_order(self) -> ClipConfig:
        if not self.min_s <= self.target_s <= self.max_s:
            raise ValueError(
                f"min_s={self.min_s:g} ≤ target_s={self.target_s:g} ≤ max_s={self.max_s:g} does not hold"
            )
        return self


class FramesConfig(Settings):
    """The frames that go into shards."""

    fps: float = Field(default=2.0, gt=0)
    size: int = Field(
        default=384, gt=0, description="pixels per side; the aspect ratio is not kept (as SigLIP is fed)"
    )
    jpeg_quality: int = Field(default=90, ge=1, le=100)
