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
    """Near-duplicate detection by perceptual hashes of sampled frames."""

    near: bool = Field(default=True, description="false: only files that are the same byte for byte")
    frames_per_s: float = Field(default=1.0, gt=0)
    max_distance: int = Field(
        default=8, ge=0, description="Hamming distance of two 64-bit hashes that count as the same picture"
    )
    max_share: float = Field(
        default=0.3, gt=0, le=1, description="share of a video's frames found in another that rejects it"
    )
