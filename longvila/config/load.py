"""Reads recipes and other settings from YAML, with overrides, into checked models."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from longvila.config.explain import explain
from longvila.config.overrides import apply_overrides
from longvila.config.recipe import DataRecipe, Recipe
from longvila.config.roots import dataset_roots
from longvila.errors import ConfigError, InputError

MAX_FILE_BYTES = 4 * 2**20
ModelT = TypeVar("ModelT", bound=BaseModel)


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("longvila.config") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_recipe(name_or_path: str | Path, *, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Load a packaged recipe by its name, or any recipe by its path, with ``{"a.b": value}`` changed in it.

    Raises ``InputError`` when there is no such recipe and ``ConfigError`` with every wrong field at once.
    """
    return load_settings(recipe_path(name_or_path), Recipe, overrides=overrides, what="recipe")


def load_data_recipe(name_or_path: str | Path, *, overrides: Mapping[str, Any] | None = None) -> DataRecipe:
    """Load what a recipe says of its data set; the recipe may hold nothing else.

    Raises as ``load_recipe``, and ``ConfigError`` when the recipe has no data section.
    """
    loaded = load_any_recipe(name_or_path, overrides=overrides)
    if isinstance(loaded, DataRecipe):
        return loaded
    if loaded.data is None:
        raise ConfigError(
            f"Recipe {loaded.name!r} has no data section: its stages name shards that exist already. "
            "Give a recipe with one."
        )
    return DataRecipe(name=loaded.name, description=loaded.description, data=loaded.data)


def load_any_recipe(
    name_or_path: str | Path, *, overrides: Mapping[str, Any] | None = None
) -> Recipe | DataRecipe:
    """Load a recipe of either kind: one that has neither ``model`` nor ``stages`` describes data alone."""
    path = recipe_path(name_or_path)
    origin = f"recipe {path}"
    text = _read(path, what="recipe")
    data = _parse(text, origin=origin)
    model = Recipe if {"model", "stages"} & set(data) else DataRecipe
    return validate(model, data, origin=origin, text=text, overrides=overrides)


def recipe_path(name_or_path: str | Path) -> Path:
    """Where the recipe lies: packaged, or ``datasets/NAME/recipe.yaml``. Raises ``InputError``."""
    given = str(name_or_path)
    if Path(given).suffix in (".yaml", ".yml") or "/" in given:
        return Path(given)
    if given in recipe_names():
        return Path(str(resources.files("longvila.config") / "recipes" / f"{given}.yaml"))
    for root in dataset_roots():
        if (root / given / "recipe.yaml").is_file():
            return root / given / "recipe.yaml"
    if Path(given).is_file():
        return Path(given)
    close = difflib.get_close_matches(given, recipe_names(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(f"There is no recipe {given!r}.{hint} {_known_recipes()}")


def load_settings(
    path: Path, model: type[ModelT], *, overrides: Mapping[str, Any] | None = None, what: str = "file"
) -> ModelT:
    """Load any settings model from a YAML file. Errors as in ``load_recipe``."""
    text = _read(path, what=what)
    data = _parse(text, origin=f"{what} {path}")
    return validate(model, data, origin=f"{what} {path}", text=text, overrides=overrides)


def validate(
    model: type[ModelT],
    data: Mapping[str, Any],
    *,
    origin: str,
    text: str = "",
    overrides: Mapping[str, Any] | None = None,
) -> ModelT:
    """Check ``data`` against ``model``. Raises one ``ConfigError`` that lists every wrong field."""
    changed = apply_overrides(dict(data), overrides or {})
    try:
        return model.model_validate(changed)
    except ValidationError as error:
        raise explain(error, model, data=changed, origin=origin, text=text, overrides=overrides) from error


def dump_settings(settings: BaseModel) -> str:
    """The settings as YAML that loads back to the same settings."""
    return yaml.safe_dump(_plain(settings), sort_keys=False, allow_unicode=True, width=110)


def _plain(value: Any) -> Any:
    """A model as plain data, without the fields that are none because nobody set them."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        shown = {name: getattr(value, name) for name in fields}
        return {
            name: _plain(item)
            for name, item in shown.items()
            if item is not None or fields[name].default is not None
        }
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _read(path: Path, *, what: str) -> str:
    if path.is_dir():
        raise InputError(f"The {what} {path} is a folder; name the YAML file in it.")
    if not path.is_file():
        raise InputError(
            f"The {what} {path} does not exist. {_known_recipes() if what == 'recipe' else ''}".rstrip()
        )
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"The {what} {path} is larger than {MAX_FILE_BYTES} bytes: not a settings file.")
        return path.read_text(encoding="utf-8")
    except PermissionError as error:
        raise InputError(
            f"The {what} {path} cannot be read: permission denied. Try chmod u+r {path}"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"The {what} {path} is not UTF-8 text (byte {error.start}).") from error


def _parse(text: str, *, origin: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
        repeated = _repeated_key(yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{origin} is not YAML{place}: {problem}") from error
    if not isinstance(data, dict):
        found = "empty" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{origin} must be a mapping of names to values, but it is {found}.")
    if repeated:
        raise ConfigError(
            f"{origin} gives {repeated[0]!r} twice, the second time in line {repeated[1]}. Keep one."
        )
    return data


def _repeated_key(node: yaml.Node | None) -> tuple[str, int] | None:
    """A key that stands twice in one mapping (YAML would silently keep the last) and its line."""
    if isinstance(node, yaml.SequenceNode):
        return next((found for child in node.value if (found := _repeated_key(child))), None)
    if not isinstance(node, yaml.MappingNode):
        return None
    seen: set[str] = set()
    for key, value in node.value:
        name = str(key.value)
        if name in seen and name != "<<":
            return name, key.start_mark.line + 1
        seen.add(name)
        if found := _repeated_key(value):
            return found
    return None


def _known_recipes() -> str:
    data = {found.parent.name for root in dataset_roots() for found in root.glob("*/recipe.yaml")}
    return (
        f"Known recipes: {', '.join(recipe_names())}, of data alone: {', '.join(sorted(data)) or 'none'}; "
        "or give the path of a YAML file."
    )
