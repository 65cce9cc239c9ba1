"""How a data set is built, from a list of sources to shards: all the parts together."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from longvila.config.footage import ClipConfig, FramesConfig, ShotConfig
from longvila.config.language import CaptionConfig, QuestionConfig
from longvila.config.model import Settings
from longvila.config.sourcing import DedupConfig, FetchConfig, NormaliseConfig, ValidateConfig
from longvila.config.synthetic import FrameCaptionConfig, NeedleSetConfig, RecallTextConfig


class ShardConfig(Settings):
    """The tars."""

    target_bytes: int = Field(default=512 * 2**20, gt=0)


class RunnerConfig(Settings):
    """Where the batches of a build run."""

    kind: Literal["threads", "processes", "dask", "ray"] = Field(
        default="threads",
        description="threads or processes of this machine, or the workers of a Dask or Ray cluster (extras)",
    )
    workers: int = Field(
        default=2, gt=0, description="batches at once; of a cluster that runs already: unused"
    )
    address: str | None = Field(
        default=None,
        description="of a cluster that runs, e.g. tcp://scheduler:8786, ray://head:10001; none: started here",
    )

    @model_validator(mode="after")
    def _address_fits(self) -> RunnerConfig:
        if self.address is not None and self.kind not in ("dask", "ray"):
            raise ValueError(f"address is for kind dask or ray, not {self.kind}. Leave it out")
        return self


class DataConfig(Settings):
    """The whole build, from a list of sources to shards."""

    sources: str = Field(description="a YAML source list: a path, or NAME for datasets/NAME/sources.yaml")
    batch_size: int = Field(default=16, gt=0, description="videos in one task")
    runner: RunnerConfig = RunnerConfig()
    max_rejected_share: float = Field(
        0.5, ge=0, le=1, description="more rejections than that end with exit code 3"
    )
    fetch: FetchConfig = FetchConfig()
    validation: ValidateConfig = ValidateConfig()
    normalise: NormaliseConfig = NormaliseConfig()
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
