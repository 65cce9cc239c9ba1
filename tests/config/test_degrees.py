"""Several degrees in one stage: which fit together, and what is said of those that do not."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from longvila.config.stage import MixtureEntry, OptimizerConfig, StageConfig


def stage(**changes: object) -> StageConfig:
    settings = {
        "name": "long_sft",
        "trains": ("llm",),
        "mixture": (MixtureEntry(dataset="a"),),
        "max_frames": 8,
        "max_tokens": 96,
        "optimizer": OptimizerConfig(learning_rate=1e-3),
        "ulysses_degree": 2,
        "ring_degree": 2,
    }
    return StageConfig.model_validate({**settings, **changes})


def test_degrees_ascend_and_end_in_the_own_ones() -> None:
    several = stage(smaller_degrees=[[2, 1], [1, 1]])
    assert several.degrees == ((1, 1), (2, 1), (2, 2))
    assert several.rows_per_bundle == (4, 2, 1)


def test_without_smaller_degrees_there_is_one() -> None:
    assert stage(max_tokens=97).degrees == ((2, 2),)
    assert stage().rows_per_bundle == (1,)


# (the change, what is wrong, how to mend it)
WRONG = [
    ({"smaller_degrees": ((0, 2),)}, "smaller_degrees.0.0", "greater than 0"),
    ({"smaller_degrees": ((2, 2),)}, r"\(2, 2\) of 4 ranks, but .* have 4", "Leave out what is not smaller"),
    ({"smaller_degrees": ((8, 1),)}, r"\(8, 1\) of 8 ranks, but .* have 4", "Leave out what is not smaller"),
    ({"smaller_degrees": ((1, 2), (1, 2))}, r"names \(1, 2\) twice", "Keep one of them"),
    (
        {"smaller_degrees": ((2, 1), (1, 2))},
        r"names \(2, 1\) and \(1, 2\), both of 2 ranks",
        "Keep one of them",
    ),
    (
        {"smaller_degrees": ((3, 1),)},
        r"\(3, 1\) of 3 ranks, which do not divide the 4 ranks",
        r"one of \[1, 2\]",
    ),
    (
        {"ulysses_degree": 6, "smaller_degrees": ((2, 1), (3, 1)), "max_tokens": 120},
        r"\(2, 1\) of 2 ranks, which do not divide the 3 ranks of the next larger degrees \(3, 1\)",
        r"one of \[1\]",
    ),
    ({"smaller_degrees": ((1, 1),), "max_tokens": 98}, "max_tokens=98 gives no whole share", "Use 96 or 100"),
    ({"smaller_degrees": ((1, 1),), "max_tokens": 3}, "max_tokens=3 gives no whole share", "Use 4"),
]


@pytest.mark.parametrize(("changes", "problem", "mend"), WRONG, ids=[str(changes) for changes, *_ in WRONG])
def test_degrees_that_do_not_fit_are_refused(changes: dict[str, object], problem: str, mend: str) -> None:
    with pytest.raises(ValidationError) as caught:
        stage(**changes)
    assert caught.match(f"(?s){problem}.*{mend}")
