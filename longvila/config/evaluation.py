"""What is measured of a checkpoint."""

from __future__ import annotations

from pydantic import Field

from longvila.config.model import Settings


class NeedleEvalConfig(Settings):
    """The needle grid: frames × depth."""

    frames: tuple[int, ...] = (16, 32, 64, 128)
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    trials_per_cell: int = Field(default=16, gt=0)
    needles: int = Field(default=4, ge=1, description="cards per video; all but one are distractors")
    seed: int = 1000


class FramesCurveConfig(Settings):
    """Accuracy against the number of sampled frames of one long video, each needle in one frame."""

    video_frames: int = Field(default=256, gt=0)
    sampled: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    trials: int = Field(default=96, gt=0)
    needles: int = Field(default=4, ge=1, description="cards per video; all but one are distractors")
    seed: int = 2000


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
