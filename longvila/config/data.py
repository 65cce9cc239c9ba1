"""How a data set is built: sources, shots, clips, captions, questions, shards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from longvila.config.model import NAME, Settings

MAX_CARDS = 8  # as many colours as cards have
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


class FetchConfig(Settings):
    """Limits and manners of the downloader."""

    timeout_s: float = Field(default=60.0, gt=0, description="without any byte arriving")
    total_timeout_s: float = Field(default=3600.0, gt=0)
    max_size_bytes: int = Field(default=20 * 2**30, gt=0)
    max_redirects: int = Field(default=5, ge=0)
    attempts: int = Field(
        default=4, gt=0, description="for 5xx answers and timeouts; never for 401, 403, 404, 410"
    )
    backoff_s: float = Field(default=1.0, gt=0)
    requests_per_host_s: float = Field(default=4.0, gt=0)
    allow_private_hosts: tuple[str, ...] = Field(
        default=(), description="host names or addresses inside private networks"
    )


class ValidateConfig(Settings):
    """What a video must be."""

    min_duration_s: float = Field(default=2.0, ge=0)
    max_duration_s: float = Field(default=6 * 3600.0, gt=0)
    min_side: int = Field(default=32, gt=0, description="pixels")

    @model_validator(mode="after")
    def _in_order(self) -> ValidateConfig:
        if self.min_duration_s > self.max_duration_s:
            raise ValueError(
                f"min_duration_s={self.min_duration_s:g} is more than max_duration_s={self.max_duration_s:g}"
            )
        return self


class DedupConfig(Settings):
    """Near-duplicate detection by perceptual hashes of sampled frames."""

    frames_per_s: float = Field(default=1.0, gt=0)
    max_distance: int = Field(
        default=8, ge=0, description="Hamming distance of two 64-bit hashes that count as the same picture"
    )
    max_share: float = Field(
        default=0.3, gt=0, le=1, description="share of a video's frames found in another that rejects it"
    )


class ShotConfig(Settings):
    """Shot detection."""

    detector: Literal["adaptive", "content"] = "adaptive"
    threshold: float = Field(default=3.0, gt=0)
    min_shot_s: float = Field(default=0.6, gt=0)


class ClipConfig(Settings):
    """How shots are joined into clips."""

    target_s: float = Field(default=10.0, gt=0)
    min_s: float = Field(default=1.0, gt=0, description="shorter shots join their neighbour")
    max_s: float = Field(default=20.0, gt=0, description="longer shots are split")

    @model_validator(mode="after")
    def _in_order(self) -> ClipConfig:
        if not self.min_s <= self.target_s <= self.max_s:
            raise ValueError(
                f"min_s={self.min_s:g} ≤ target_s={self.target_s:g} ≤ max_s={self.max_s:g} does not hold"
            )
        return self


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


class FramesConfig(Settings):
    """The frames that go into shards."""

    fps: float = Field(default=2.0, gt=0)
    size: int = Field(
        default=384, gt=0, description="pixels per side; the aspect ratio is not kept (as SigLIP is fed)"
    )
    jpeg_quality: int = Field(default=90, ge=1, le=100)


class ShardConfig(Settings):
    """The tars."""

    target_bytes: int = Field(default=512 * 2**20, gt=0)


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


class DataConfig(Settings):
    """The whole build, from a list of sources to shards."""

    sources: str = Field(description="a YAML source list: a path, or NAME for datasets/NAME/sources.yaml")
    batch_size: int = Field(default=16, gt=0, description="videos in one task")
    max_rejected_share: float = Field(
        0.5, ge=0, le=1, description="more rejections than that end with exit code 3"
    )
    fetch: FetchConfig = FetchConfig()
    validation: ValidateConfig = ValidateConfig()
    dedup: DedupConfig = DedupConfig()
    shots: ShotConfig = ShotConfig()
    clips: ClipConfig = ClipConfig()
    captions: CaptionConfig = CaptionConfig()
    questions: QuestionConfig = QuestionConfig()
    frames: FramesConfig = FramesConfig()
    shards: ShardConfig = ShardConfig()
    frame_captions: tuple[FrameCaptionConfig, ...] = ()
    needle_sets: tuple[NeedleSetConfig, ...] = ()
    recall_texts: tuple[RecallTextConfig, ...] = ()
