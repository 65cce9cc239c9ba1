from __future__ import annotations

from pathlib import Path

import pytest

from tests.training import tiny


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards and a starting checkpoint, made once."""
    root = tmp_path_factory.mktemp("training")
    tiny.write_inputs(root)
    return root
