from __future__ import annotations

from pathlib import Path

import pytest

from longvila.config import load_recipe
from longvila.errors import MachineError
from longvila.planning import check_free_space, count_weights, estimate_bytes


def test_weights_are_counted_within_a_tenth_of_what_is_published() -> None:
    # Qwen2-7B has 7.62 billion, SigLIP-SO400M 0.43 billion, Qwen2-1.5B 1.54 billion.
    assert count_weights(load_recipe("longvila-7b").model) == pytest.approx(8.05e9, rel=0.1)
    assert count_weights(load_recipe("longvila-1.5b").model) == pytest.approx(1.97e9, rel=0.1)


def test_small_recipes_need_little_and_large_ones_much() -> None:
    assert estimate_bytes(load_recipe("demo")) < 2 * 2**30
    assert estimate_bytes(load_recipe("longvila-7b")) > 500 * 2**30


def test_sources_count() -> None:
    recipe = load_recipe("demo")
    assert estimate_bytes(recipe, source_bytes=10**9) - estimate_bytes(recipe) == 10**9


def test_too_little_disk_says_how_much_and_what_to_do(tmp_path: Path) -> None:
    check_free_space(tmp_path / "not" / "there" / "yet", 1024)
    with pytest.raises(MachineError, match=r"needs about .* GiB. Free some space, or put the workspace"):
        check_free_space(tmp_path, 2**60)
