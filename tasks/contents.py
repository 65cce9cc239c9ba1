"""What a data set that was built consists of: the one record that later flows and the report start from."""

from __future__ import annotations

from pydantic import Field

from longvila.config.model import Settings
from tasks.refs import ManifestRef


class BuiltDataset(Settings):
    """A data set that was built: its shards, its manifests, and which sources it was built from."""

    datasets: dict[str, str] = Field(description="data set name → address of its shards")
    sources: dict[str, str] = Field(description="source id → content id of its entry in the list")
    videos: ManifestRef
    scans: tuple[ManifestRef, ...]
    captions: tuple[ManifestRef, ...]
    questions: ManifestRef
    steps: tuple[ManifestRef, ...] = Field(description="what every step took in and gave, in order")
    rejections: tuple[ManifestRef, ...] = Field(
        default=(), description="every batch of every step, for their rejections"
    )
    duplicates: ManifestRef | None = Field(
        default=None, description="pairs of videos that share something (DuplicatePair)"
    )
    num_rejected_sources: int = 0
    reused: bool = Field(default=False, description="every step's output was there before")

    @property
    def last_word(self) -> str:
        """For the terminal."""
        return "\n".join(f"{name}: {where}" for name, where in self.datasets.items())
