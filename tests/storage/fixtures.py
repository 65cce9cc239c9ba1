"""A real S3 server for the session; conftest files import these fixtures."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from longvila.storage import Storage, open_storage
from longvila.storage.s3_server import S3Server, serve_s3


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty prefix of its own for each test."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return f"{s3_server.url}/{secrets.token_hex(6)}"


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """The same test runs on a folder and on a real S3 server."""
    if request.param == "local":
        return open_storage(tmp_path / "storage")
    return open_storage(request.getfixturevalue("s3_url"))
