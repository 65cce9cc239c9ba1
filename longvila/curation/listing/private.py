"""Addresses with a secret in them: manifests get the public part, a local file of the owner the whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TextIO

from longvila.config.addresses import is_partial, public, redacted
from longvila.errors import ItemError
from longvila.records import Source
from longvila.storage import Workspace, atomic_path


def published(source: Source) -> Source:
    """The source as it may be written into a manifest."""
    url = public(source.url)
    return source if url == source.url else source.model_copy(update={"url": url})


def keep_addresses(workspace: Workspace, key: str, sources: Sequence[Source]) -> None:
    """Remember the whole addresses of the batch that is written as the manifest ``key``."""
    whole = {source.source_id: source.url for source in sources if is_partial(public(source.url))}
    if whole:
        with atomic_path(_path(workspace, key)) as part, _open_private(part) as file:
            json.dump(whole, file)


def whole_addresses(workspace: Workspace, key: str) -> dict[str, str]:
    """The whole addresses of a batch by source id; empty when none of it holds a secret."""
    try:
        return json.loads(_path(workspace, key).read_text())
    except (FileNotFoundError, ValueError):
        return {}


def with_whole_address(source: Source, known: Mapping[str, str]) -> Source:
    """The source as it is fetched. Raises ``ItemError`` when the secret part is kept on another machine."""
    if not is_partial(source.url):
        return source
    url = known.get(source.source_id, "")
    if public(url) != source.url:
        raise ItemError(
            "address-unknown",
            f"{redacted(source.url)}: a part of the address is secret and kept only where the sources were "
            "listed. List them on this machine, or give workers the same workspace folder.",
        )
    return source.model_copy(update={"url": url})


def _open_private(path: Path) -> TextIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")


def _path(workspace: Workspace, key: str) -> Path:
    return workspace.scratch("addresses") / f"{PurePosixPath(key).stem}.json"
