"""A recipe: everything that defines one model's life, in one YAML file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from longvila.config.consistency import check_consistency
from longvila.config.data import DataConfig
from longvila.config.evaluation import EvalConfig
from longvila.config.model import NAME, ModelConfig, Settings
from longvila.config.stage import STAGES, OptimizerConfig, StageConfig, StageName

RECIPE_NAME = r"^[a-z0-9][a-z0-9._-]*$"


class TowerConfig(Settings):
    """A small classification run that prepares a tower which has no pre-trained weights.

    It stands in for SigLIP's pre-training and is not one of the five stages.
    """

    steps: int = Field(gt=0)
    batch_size: int = Field(default=128, gt=0, description="frames")
    optimizer: OptimizerConfig
    seed: int = 0


class ControlConfig(Settings):
    """A checkpoint made only to be compared with: what a stage's effect is measured against.

    ``theta_only``: the weights of ``start`` with the RoPE base of ``like``, without training.
    ``skip_extension``: ``like`` trained from ``start`` at the old RoPE base, without stage 4.
    """

    name: str = Field(pattern=NAME, description="names its checkpoint: letters, digits, - and _")
    kind: Literal["theta_only", "skip_extension"]
    start: StageName
    like: StageName


class DataRecipe(Settings):
    """A data set alone: what the file says that has neither a model nor stages."""

    name: str = Field(pattern=RECIPE_NAME)
    description: str = ""
    data: DataConfig


class Recipe(Settings):
    """One model's life: data, model, five stages, evaluation."""

    name: str = Field(pattern=RECIPE_NAME)
    description: str = ""
    model: ModelConfig
    data: DataConfig | None = Field(
        default=None, description="none when the stages name shards that exist already"
    )
    tower: TowerConfig | None = None
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    controls: tuple[ControlConfig, ...] = ()
    evaluation: EvalConfig = EvalConfig()

    @model_validator(mode="after")
    def _stages_in_order(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if names != [name for name in STAGES if name in names]:
            raise ValueError(
                f"stages must be in the order {', '.join(STAGES)}, each at most once; got {names}"
            )
        for control in self.controls:
            for name in (control.start, control.like):
                if name not in names:
                    raise ValueError(f"control {control.name!r} names stage {name!r}, which the recipe lacks")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        check_consistency(self)
        return self

    def stage(self, name: str) -> StageConfig:
        """Return the stage of that name; raise ``KeyError`` with the names that exist."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(f"no stage {name!r} in recipe {self.name!r}; it has {[s.name for s in self.stages]}")
