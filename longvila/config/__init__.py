"""Configuration: frozen pydantic models, YAML recipes, and errors that say what to mend."""

from longvila.config.data import DataConfig
from longvila.config.evaluation import EvalConfig
from longvila.config.load import (
    dump_settings,
    load_any_recipe,
    load_data_recipe,
    load_recipe,
    load_settings,
    recipe_names,
    recipe_path,
    validate,
)
from longvila.config.model import LlmConfig, ModelConfig, ProjectorConfig, Settings, VisionConfig
from longvila.config.overrides import apply_overrides, parse_overrides
from longvila.config.recipe import ControlConfig, DataRecipe, Recipe, TowerConfig
from longvila.config.sources import load_sources, source_list_path
from longvila.config.stage import STAGES, LoraConfig, MixtureEntry, OptimizerConfig, StageConfig, StageName

__all__ = [
    "STAGES",
    "ControlConfig",
    "DataConfig",
    "DataRecipe",
    "EvalConfig",
    "LlmConfig",
    "LoraConfig",
    "MixtureEntry",
    "ModelConfig",
    "OptimizerConfig",
    "ProjectorConfig",
    "Recipe",
    "Settings",
    "StageConfig",
    "StageName",
    "TowerConfig",
    "VisionConfig",
    "apply_overrides",
    "dump_settings",
    "load_any_recipe",
    "load_data_recipe",
    "load_recipe",
    "load_settings",
    "load_sources",
    "parse_overrides",
    "recipe_names",
    "recipe_path",
    "source_list_path",
    "validate",
]
