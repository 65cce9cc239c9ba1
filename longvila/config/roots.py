"""Where declarations lie: source lists, prompts and recipes of data sets, by name."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGED = Path(__file__).resolve().parents[1] / "_datasets"
REPOSITORY = Path(__file__).resolve().parents[2] / "datasets"


def dataset_roots() -> list[Path]:
    """Where ``NAME`` is looked for: ``LONGVILA_DATASETS_DIR``, the repository, the packaged copy."""
    given = os.environ.get("LONGVILA_DATASETS_DIR")
    return [*([Path(given)] if given else []), REPOSITORY, PACKAGED]
