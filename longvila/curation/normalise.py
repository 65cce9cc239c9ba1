"""From a fetched file to a video that every later step can seek in: as it is, or encoded anew."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import time
from pathlib import Path

from longvila.config.sourcing import NormaliseConfig, ValidateConfig
from longvila.curation.fetching.fetch import FetchedVideo
from longvila.curation.validate import limits_of, look_into, video_record
from longvila.errors import ItemError
from longvila.media.guard import Guard
from longvila.media.inspection import Inspection
from longvila.media.normalise import Encoding, check_same_length
from longvila.media.normalise import normalise as encode_anew
from longvila.records import VideoRecord
from longvila.storage import Workspace
from longvila.storage.files import os_errors

logger = logging.getLogger(__name__)


def bring_in(
    fetched: FetchedVideo,
    workspace: Workspace,
    config: ValidateConfig,
    normalising: NormaliseConfig,
    *,
    guard: Guard,
) -> VideoRecord:
    """Check one fetched file, encode it anew where that is needed, and return what is to be used.

    Its ``video_id`` comes from the fetched file in both cases. Raises ``ItemError``; reasons: those of
    ``validate.look_into`` and of ``media.normalise.normalise``.
    """
    path = workspace.fetch_local(fetched.key)
    as_it_is = normalising.when == "never"
    found = look_into(fetched, path, config, guard=guard, as_it_is=as_it_is)
    if as_it_is or (normalising.when == "needed" and not found.why_normalise):
        return video_record(fetched, found.facts)
    why = ", ".join(found.why_normalise) or "asked for"
    logger.info("encoding %s anew: %s", fetched.source_id, why)
    return _encoded(fetched, path, found, workspace, config, normalising, guard=guard)


def _encoded(
    fetched: FetchedVideo,
    path: Path,
    found: Inspection,
    workspace: Workspace,
    config: ValidateConfig,
    normalising: NormaliseConfig,
    *,
    guard: Guard,
) -> VideoRecord:
    folder = workspace.scratch("normalise")
    _sweep(folder, older_than_s=2 * normalising.timeout_s)
    out = folder / f"{fetched.sha256[:16]}-{secrets.token_hex(4)}.mp4"
    try:
        with os_errors(f"write {out}"):
            encode_anew(path, out, found.facts, _encoding(config, normalising), name=fetched.source_id)
        try:
            # Held against all limits but length and rate, which may have been rounded.
            limits = limits_of(config.model_copy(update={"min_duration_s": 0.0, "max_duration_s": 1e9}))
            facts = guard.inspect(out, name=fetched.source_id, limits=limits, as_it_is=True).facts
            check_same_length(found.facts, facts, name=fetched.source_id)
        except ItemError as error:
            detail = f"{error.detail} (after it was encoded anew)"
            raise ItemError(error.reason, detail) from error
        sha256, size_bytes = _sha256(out), out.stat().st_size
        key = f"videos/{sha256[:2]}/{sha256}.mp4"
        if not workspace.storage.exists(key):
            workspace.storage.put_file(key, out)
    finally:
        out.unlink(missing_ok=True)
    record = video_record(fetched, facts)
    return record.model_copy(
        update={"key": key, "sha256": sha256, "size_bytes": size_bytes, "normalised_from": fetched.sha256}
    )


def _sweep(folder: Path, *, older_than_s: float) -> None:
    """Remove what runs that were killed left behind."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > older_than_s:
                path.unlink()


def _encoding(config: ValidateConfig, normalising: NormaliseConfig) -> Encoding:
    return Encoding(
        max_fps=normalising.max_fps,
        crf=normalising.crf,
        preset=normalising.preset,
        key_frame_every_s=normalising.key_frame_every_s,
        threads=normalising.threads,
        timeout_s=normalising.timeout_s,
        max_pixels=config.max_pixels,
        memory_bytes=config.memory_bytes,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
