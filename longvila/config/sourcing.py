"""How sources are brought in: fetching, checking, and leaving out what is there twice."""

from __future__ import annotations

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
    """What counts as a duplicate, by perceptual fingerprints of the whole time line."""

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
