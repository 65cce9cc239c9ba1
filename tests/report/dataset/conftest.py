from __future__ import annotations

from datetime import UTC, datetime

import pytest

from longvila.curation.duplicates.splits import SplitReport
from longvila.report.dataset import About, BuildOutputs, BuildReport, gather_build
from longvila.storage import Workspace
from tests.report.dataset.making import HOSTILE, make_build

ABOUT = About("small", HOSTILE, datetime(2026, 1, 2, tzinfo=UTC), "sources: demo\n", {"fetch": 3})
SPLITS = SplitReport(
    num_train_pictures=64, num_heldout_pictures=32, nearest_distance=20, max_distance=8, shared=()
)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> tuple[Workspace, BuildOutputs]:
    """A build of six sources."""
    workspace = Workspace.open(tmp_path_factory.mktemp("small-build"))
    return workspace, make_build(workspace)


@pytest.fixture(scope="session")
def report(small) -> BuildReport:
    """What its page shows."""
    return gather_build(*small, ABOUT, splits=SPLITS)
