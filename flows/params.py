"""The parameters of the flows: one model each, for the command line, YAML files and the UI's forms."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import Field

from longvila.config.model import Settings
from longvila.config.overrides import parse_overrides
from longvila.config.recipe import DataRecipe, Recipe
from longvila.config.stage import StageName


class FlowParams(Settings):
    """What every flow needs: a recipe and a place to work in."""

    recipe: str = Field(
        default="demo", description="a recipe's name (longvila config list) or the path of its YAML file"
    )
    overrides: tuple[str, ...] = Field(
        default=(), description="changes to the recipe, e.g. stages.short_sft.steps=10"
    )
    workspace: str = Field(
        default="workspace/demo",
        min_length=1,
        description="a local folder for the ledger, runs and reports",
    )
    storage: str = Field(
        "local",
        description="local; s3 for a server started on loopback; or s3://bucket/prefix (keys from AWS_*)",
    )

    def load_recipe(self) -> Recipe:
        """The recipe with the overrides in it. Errors as ``longvila.config.load_recipe``."""
        from longvila.config.load import load_recipe

        return load_recipe(self.recipe, overrides=parse_overrides(self.overrides))


class DataParams(FlowParams):
    """What the flows need that look at a recipe's data alone."""

    def load_data_recipe(self) -> DataRecipe:
        """The recipe's data with the overrides in it. Errors as ``longvila.config.load_data_recipe``."""
        from longvila.config.load import load_data_recipe

        return load_data_recipe(self.recipe, overrides=parse_overrides(self.overrides))


class BuildParams(DataParams):
    """Build a data set: sources → shots → clips → captions → questions → shards."""


class RefreshParams(DataParams):
    """Look for what is new in the sources and build only that."""

    evaluate: bool = Field(default=True, description="evaluate the newest checkpoint when the data changed")


class TrainStageParams(FlowParams):
    """Train one stage from an exported checkpoint."""

    stage: StageName = Field(default="align", description="which of the five stages")
    init_from: str = Field(
        default="", description="folder of an exported checkpoint; empty: the stage before, or the start"
    )
    engine: Literal["deepspeed", "torch"] = Field(
        default="deepspeed", description="torch: one process, for small machines"
    )


class TrainPipelineParams(FlowParams):
    """Train the stages one after another."""

    from_stage: StageName = Field(default="align", description="first stage to train")
    until_stage: StageName = Field(default="long_sft", description="last stage to train")
    init_from: str = Field(
        default="", description="checkpoint that the first stage starts from; empty: found or made"
    )
    engine: Literal["deepspeed", "torch"] = Field(
        default="deepspeed", description="torch: one process, for small machines"
    )


class EvaluateParams(FlowParams):
    """Measure a checkpoint: needle grid, accuracy against frames, held-out questions."""

    checkpoints: tuple[str, ...] = Field(
        default=(), description="folders of exported checkpoints, or names in the workspace; none: the newest"
    )


class LifecycleParams(FlowParams):
    """The whole life: data set, tokenizer, tower, five stages, controls, evaluation, report."""

    engine: Literal["deepspeed", "torch"] = Field(
        default="deepspeed", description="torch: one process, for small machines"
    )


ParamsT = TypeVar("ParamsT", bound=FlowParams)


def narrow(params: FlowParams, model: type[ParamsT], **changed: Any) -> ParamsT:
    """The parameters of an inner flow: those that it shares with the outer one, and what is different."""
    shared = set(model.model_fields) & set(type(params).model_fields)
    return model.model_validate(params.model_dump(include=shared) | changed)
