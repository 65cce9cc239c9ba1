from __future__ import annotations

from pathlib import Path

import pytest

from longvila.config import DataRecipe, Recipe, load_any_recipe, load_data_recipe, load_recipe
from longvila.errors import ConfigError, InputError


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_recipe_may_be_of_data_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "name: mine\ndata: {sources: demo, runner: {kind: processes, workers: 4}}\n")
    loaded = load_any_recipe(path, overrides={"data.batch_size": 3})
    assert isinstance(loaded, DataRecipe)
    assert (loaded.data.batch_size, loaded.data.runner.kind, loaded.data.runner.workers) == (
        3,
        "processes",
        4,
    )
    assert load_data_recipe(path, overrides={"data.batch_size": 3}) == loaded


def test_the_data_of_a_whole_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    whole = load_recipe("demo")
    assert isinstance(load_any_recipe("demo"), Recipe)
    assert load_data_recipe("demo").data == whole.data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: mine\n", "data"),
        ("name: mine\ndata: {sources: demo, runner: {address: x}}\n", "address is for kind dask or ray"),
        ("name: mine\ndata: {sources: demo, runner: {workers: 0}}\n", "workers"),
        ("name: mine\ndata: {sources: demo}\nstages: []\n", "model"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_data_recipe(write(tmp_path, text))


def test_a_recipe_without_data_cannot_be_built() -> None:
    with pytest.raises(ConfigError, match="has no data section"):
        load_data_recipe("longvila-7b")


def test_a_data_set_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "recipe.yaml").write_text("name: films\ndata: {sources: demo}\n")
    monkeypatch.setenv("LONGVILA_DATASETS_DIR", str(tmp_path))
    assert load_data_recipe("films").name == "films"
    with pytest.raises(InputError, match="no recipe 'filmz'"):
        load_data_recipe("filmz")
