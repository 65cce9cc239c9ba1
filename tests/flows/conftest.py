from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from longvila.config import load_sources
from longvila.config.sources import source_list_path

DEMO = source_list_path("demo").parent


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One server for all tests that run flows."""
    from flows.cli.runtime import prepare_environment

    prepare_environment()
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


def write_sources(folder: Path, names: list[str]) -> Path:
    """A source list of some of the demo's videos, which lie where they are."""
    known = {source.source_id: source for source in load_sources("demo")}
    lines = ["sources:"]
    for name in names:
        source = known[name]
        lines.append(f"  - {{source_id: {name}, url: {DEMO / source.url}, split: {source.split}}}")
    path = folder / "sources.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_recipe(folder: Path, sources: Path) -> Path:
    """The demo's recipe with its data sets made small and cheap, on these sources."""
    from longvila.config import dump_settings, load_recipe

    recipe = load_recipe(
        "demo",
        overrides={
            "name": "small",
            "data.sources": str(sources),
            "data.frames.fps": 1.0,
            "data.frame_captions.0.num_samples": 20,
            "data.needle_sets.0.num_samples": 6,
            "data.needle_sets.1.num_samples": 2,
            "data.recall_texts.0.num_samples": 6,
            "data.recall_texts.1.num_samples": 6,
        },
    )
    path = folder / "small.yaml"
    path.write_text(dump_settings(recipe))
    return path
