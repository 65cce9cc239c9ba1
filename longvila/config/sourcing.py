"""How sources are brought in: fetching, checking, and leaving out what is there twice."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from longvila.config.model import Settings


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
    """What a video must be, and what looking into one may cost."""

    min_duration_s: float = Field(default=2.0, ge=0)
    max_duration_s: float = Field(default=6 * 3600.0, gt=0)
    min_side: int = Field(default=32, gt=0, description="pixels")
    max_pixels: int = Field(
        default=8192 * 8192, gt=0, description="width × height; more is refused before any picture is decoded"
    )
    max_fps: float = Field(default=480.0, gt=0, description="the mean; more is a broken clock")
    allow_still: bool = Field(default=False, description="keep videos in which the picture never changes")
    timeout_s: float = Field(default=600.0, gt=0, description="for looking into one file")
    memory_bytes: int = Field(
        default=6 * 2**30, ge=2**29, description="of the process that looks into a file, and of ffmpeg"
    )

    @model_validator(mode="after")
    def _in_order(self) -> ValidateConfig:
        if self.min_duration_s > self.max_duration_s:
            raise ValueError(
                f"min_duration_s={self.min_duration_s:g} is more than max_duration_s={self.max_duration_s:g}"
            )
        return self


class NormaliseConfig(Settings):
    """Which videos are encoded anew before they are used, and how: H.264, constant rate, upright, MP4."""

    when: Literal["never", "needed", "always"] = Field(
        default="needed",
        description="needed: variable rate, turned, interlaced, pixels not square, HDR, old codec",
    )
    max_fps: float = Field(
        default=60.0, gt=0, le=240, description="a variable rate is made constant up to this"
    )
    crf: int = Field(default=18, ge=0, le=51, description="x264's quality; lower is better and larger")
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = "veryfast"
    key_frame_every_s: float = Field(default=2.0, gt=0)
    threads: int = Field(
        default=1,
        gt=0,
        description="cores for one video; another number gives other bytes for the same picture",
    )
    timeout_s: float = Field(default=4 * 3600.0, gt=0, description="for encoding one video")


class DedupConfig(Settings):
    """Near-duplicate detection by perceptual hashes of sampled frames."""

    frames_per_s: float = Field(default=1.0, gt=0)
    max_distance: int = Field(
        default=8, ge=0, description="Hamming distance of two 64-bit hashes that count as the same picture"
    )
    max_share: float = Field(
        default=0.3, gt=0, le=1, description="share of a video's frames found in another that rejects it"
    )
