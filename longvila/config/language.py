"""Who says what of a video: captions and questions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from longvila.config.model import Settings

QuestionKind = Literal[
    "brightness",
    "main_colour",
    "colour_place",
    "lightest_side",
    "change",
    "start_colour",
    "end_colour",
    "when_darkest",
    "when_lightest",
    "motion",
    "texture",
    "camera",
    "count",
    "recurs",
    "synopsis",
]


class CaptionConfig(Settings):
    """Who describes the clips."""

    captioner: Literal["measured"] = "measured"
    frames_per_clip: int = Field(default=8, ge=2)


class QuestionConfig(Settings):
    """Who writes the questions, and how many."""

    writer: Literal["measured"] = "measured"
    kinds: tuple[QuestionKind, ...] = Field(default=(), description="none: all")
    window_s: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(), description="lengths of the spans asked about; none: whole videos"
    )
    stride_s: float = Field(default=4.0, gt=0)
    max_per_video: int = Field(default=400, gt=0)
