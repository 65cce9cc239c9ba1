"""What is measured of a checkpoint."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from longvila.config.model import Settings
from longvila.config.synthetic import MAX_CARDS

Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class NeedleEvalConfig(Settings):
    """The needle grid: frames × depth."""

    frames: tuple[Count, ...] = Field(
        default=(16, 32, 64, 128), min_length=1, description="lengths of the videos"
    )
    depths: tuple[Share, ...] = Field(
        default=(0.0, 0.25, 0.5, 0.75, 1.0), min_length=1, description="0: the first frame; 1: the last"
    )
    trials_per_cell: int = Field(default=16, gt=0)
    needles: int = Field(
        default=4, ge=1, le=MAX_CARDS, description="cards per video; all but one are distractors"
    )
    seed: int = Field(default=1000, ge=0)


class FramesCurveConfig(Settings):
    """Accuracy against the number of sampled frames of one long video, each needle in one frame."""

    video_frames: int = Field(default=256, gt=0)
    sampled: tuple[Count, ...] = Field(
        default=(8, 16, 32, 64, 128, 256), min_length=1, description="how many of them are shown"
    )
    trials: int = Field(default=96, gt=0)
    needles: int = Field(
        default=4, ge=1, le=MAX_CARDS, description="cards per video; all but one are distractors"
    )
    seed: int = Field(default=2000, ge=0)

    @model_validator(mode="after")
    def _enough_frames(self) -> FramesCurveConfig:
        if max(self.sampled) > self.video_frames:
            raise ValueError(
                f"sampled={max(self.sampled)} is more than the video_frames={self.video_frames} of each video"
            )
        return self


class QaEvalConfig(Settings):
    """Held-out questions on real video, against a text-only baseline."""

    dataset: str
    max_frames: int = Field(default=64, gt=0)
    max_questions: int | None = Field(
        default=None, gt=0, description="a random choice, always the same, where there are more; none: all"
    )
    confidence: float = Field(default=0.95, gt=0, lt=1)


class EvalConfig(Settings):
    """Everything that the evaluation flow measures."""

    max_row_tokens: int = Field(
        default=8192, gt=0, description="questions are packed into rows of so many tokens; bounds the memory"
    )
    needle: NeedleEvalConfig | None = NeedleEvalConfig()
    frames_curve: FramesCurveConfig | None = None
    qa: QaEvalConfig | None = None
