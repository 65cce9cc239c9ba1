"""Sets that are composed from real frames or written by rule: needles, recall texts, single frames."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from longvila.config.model import NAME, Settings

MAX_CARDS = 8  # as many colours as cards have


class NeedleSetConfig(Settings):
    """A set of videos composed from real frames with cards hidden in them (evaluation, section 4)."""

    name: str = Field(pattern=NAME, description="letters, digits, - and _")
    num_samples: int = Field(gt=0)
    min_frames: int = Field(gt=0)
    max_frames: int = Field(gt=0)
    lengths: Literal["uniform", "log_uniform"] = Field(
        default="uniform", description="each length as likely, or each doubling of it"
    )
    needles: int = Field(default=4, ge=1, le=MAX_CARDS, description="cards per video, each of its own colour")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> NeedleSetConfig:
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames={self.min_frames} is more than max_frames={self.max_frames}")
        return self


class RecallTextConfig(Settings):
    """A text-only set that asks for values named earlier, for context extension."""

    name: str = Field(pattern=NAME, description="letters, digits, - and _")
    num_samples: int = Field(gt=0)
    min_tokens: int = Field(gt=0)
    max_tokens: int = Field(gt=0)
    pairs: int = Field(default=4, ge=1, le=MAX_CARDS, description="each of its own colour")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> RecallTextConfig:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}")
        return self


class FrameCaptionConfig(Settings):
    """Single frames with a short true caption, for stages 1 and 2."""

    name: str = Field(default="frame-captions", pattern=NAME, description="letters, digits, - and _")
    num_samples: int = Field(gt=0)
    card_share: float = Field(
        default=0.6, ge=0, le=1, description="share of the frames that show a card, as needle videos do"
    )
    seed: int = Field(default=0, ge=0)
