"""How sources are brought in: fetching, checking, and leaving out what is there twice."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from longvila.config.model import Settings


class FetchConfig(Settings):
    """Limits and manners of the downloader."""

    timeout_s: float = Field(default=60.0, gt=0, description="without any byte arriving")
    total_timeout_s: float = Field(default=3600.0, gt=0, description="for one source, all attempts together")
    max_size_bytes: int = Field(default=20 * 2**30, gt=0, description="of one source")
    max_total_bytes: int | None = Field(
        default=None,
        gt=0,
        description="of all sources together: from the first, in the order of the list, that does not fit, "
        "the rest is left out; none: no limit",
    )
    max_redirects: int = Field(default=5, ge=0)
    attempts: int = Field(
        default=4,
        gt=0,
        description="in a row that bring no byte, for 5xx answers and timeouts; never for 401, 403, 404, 410",
    )
    backoff_s: float = Field(
        default=1.0, gt=0, description="before the second attempt; doubled for each next"
    )
    max_retry_after_s: float = Field(
        default=300.0, ge=0, description="longest wait that a server may ask for; longer ends the attempts"
    )
    requests_per_host_s: float = Field(default=4.0, gt=0)
    host_rates: dict[str, float] = Field(
        default_factory=dict, description="requests_per_host_s of single hosts (name, or name:port)"
    )
    connections: int = Field(default=4, gt=0, le=64, description="sources of one batch fetched at once")
    allow_private_hosts: tuple[str, ...] = Field(
        default=(), description="host names or addresses inside private networks"
    )
    video_format: str = Field(
        default="b[height<=720]/bv*[height<=720]/b/bv*",
        description="what yt-dlp takes of a page (its option -f)",
    )
    max_bytes_s: int | None = Field(
        default=None, gt=0, description="bytes per second of one yt-dlp download; none: no limit"
    )

    @model_validator(mode="after")
    def _rates_are_positive(self) -> FetchConfig:
        for host, rate in self.host_rates.items():
            if rate <= 0:
                raise ValueError(f"host_rates[{host!r}]={rate:g} must be more than 0 requests per second")
        return self


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
    """What counts as a duplicate, by perceptual fingerprints of the whole time line."""

    near: bool = Field(
        default=True, description="false: copies among training videos stay, but for files that are the same"
    )
    frames_per_s: float = Field(
        default=1.0, gt=0, description="pictures per second by which a training video is looked up, at most 4"
    )
    max_distance: int = Field(
        default=12,
        ge=0,
        le=20,
        description="bits of 64 in which two pictures at matching times may differ and be the same",
    )
    max_share: float = Field(
        default=0.3, gt=0, le=1, description="share of a video found in others that rejects it"
    )
    leak_passage_s: float = Field(
        default=3.0,
        gt=0,
        description="so much in common with a held-out or evaluation video rejects a training video; "
        "passages shorter than 2.5 s are not seen",
    )
    evaluation_lists: tuple[str, ...] = Field(
        default=(),
        description="what the training videos must not show: source lists, files of fingerprints "
        "(longvila task run fingerprint_videos), or text files with one id or URL per line",
    )
