"""Servers that live as long as a flow: the demo's web server, the S3 server, and the workspace on top."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longvila.config.sources import read_source_list, source_list_path
from longvila.media.server import FileServer
from tasks.refs import WorkspaceRef

logger = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"


@contextmanager
def open_workspace(root: str, storage: str) -> Iterator[WorkspaceRef]:
    """Yield the workspace. With ``storage="s3"`` an S3 server runs on loopback meanwhile."""
    folder = Path(root).expanduser().absolute()
    if storage != "s3":
        reference = WorkspaceRef(root=str(folder), storage=storage)
        reference.open()
        yield reference
        return
    from longvila.storage.s3_server import serve_s3

    WorkspaceRef(root=str(folder)).open()
    with serve_s3(folder / "s3") as server, server.environment():
        logger.info("object storage: %s at %s", server.url, server.endpoint)
        yield WorkspaceRef(root=str(folder), storage=f"{server.url}/{folder.name or 'workspace'}")


@contextmanager
def serve_sources(source_list: str) -> Iterator[str | None]:
    """Serve the folder of a source list over HTTP on loopback while the block runs; yield its address.

    Yields none, and serves nothing, when every source of the list has an address of its own.
    """
    folder = source_list_path(source_list).parent
    if not read_source_list(source_list).has_relative:
        yield None
        return
    with FileServer(folder) as server:
        yield server.url
