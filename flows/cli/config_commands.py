"""``longvila config``: look at recipes, check them, print their schema."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Recipes: list, show, validate, schema.")
RecipeArgument = Annotated[str, typer.Argument(help="a recipe's name, or the path of its YAML file")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="change one field; may be given often")
]


@app.command("list")
def list_recipes() -> None:
    """List the recipes that come with the package."""
    from longvila.config import load_recipe, recipe_names

    for name in recipe_names():
        typer.echo(f"{name:<16} {load_recipe(name).description}")


@app.command()
def show(
    recipe: RecipeArgument,
    changes: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of YAML")] = False,
) -> None:
    """Print a recipe with every default and every --set in it."""
    from longvila.config import dump_settings, load_any_recipe, parse_overrides

    loaded = load_any_recipe(recipe, overrides=parse_overrides(changes or []))
    typer.echo(loaded.model_dump_json(indent=2) if as_json else dump_settings(loaded))


@app.command()
def validate(recipe: RecipeArgument, changes: SetOption = None) -> None:
    """Check a recipe; every wrong field is named at once."""
    from longvila.config import Recipe, load_any_recipe, load_sources, parse_overrides

    loaded = load_any_recipe(recipe, overrides=parse_overrides(changes or []))
    if loaded.data is not None:
        load_sources(loaded.data.sources)
    parts = [stage.name for stage in loaded.stages] if isinstance(loaded, Recipe) else ["data alone"]
    typer.echo(f"{loaded.name} is valid: {', '.join(parts)}")


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from longvila.config import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=2))
