from __future__ import annotations

import pytest

from longvila.curation.listing.sources import load_sources
from longvila.media.server import FileServer
from longvila.storage import Workspace
from tests.curation.build_once import Built
from tests.media.making import DEMO

CHOSEN = ("03-meadow", "05-workshop", "09-lesson", "10-meadow-again", "11-cut-short", "12-lost")


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Built:
    """A build of a part of the demo, made once for all tests, its sources fetched over HTTP."""
    workspace = Workspace.open(tmp_path_factory.mktemp("built") / "workspace")
    with FileServer(DEMO.parent) as server:
        listed = load_sources("demo", base_url=server.url)
        return Built.make(workspace, [source for source in listed if source.source_id in CHOSEN])
