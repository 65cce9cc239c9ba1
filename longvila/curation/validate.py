"""Which fetched files are videos that the build can use."""

from __future__ import annotations

from pathlib import Path

from longvila.config.sourcing import ValidateConfig
from longvila.curation.fetch import FetchedVideo
from longvila.errors import ItemError
from longvila.media.probe import probe
from longvila.media.verify import check_decodes
from longvila.records import VideoRecord

VERSION = 1


def validate(fetched: FetchedVideo, path: Path, config: ValidateConfig) -> VideoRecord:
    """Probe the file and decode its beginning, middle and end.

    Raises ``ItemError``; reasons: ``media.probe``'s, and undecodable, too-short, too-long, too-small.
    """
    facts = probe(path)
    name = fetched.source_id
    if facts.is_truncated:
        raise ItemError(
            "truncated",
            f"{name} is cut short: only {facts.duration_s:.1f} s of what its header promises is there",
        )
    if facts.duration_s < config.min_duration_s:
        raise ItemError(
            "too-short", f"{name} lasts {facts.duration_s:.2f} s, less than {config.min_duration_s} s"
        )
    if facts.duration_s > config.max_duration_s:
        raise ItemError(
            "too-long", f"{name} lasts {facts.duration_s:.0f} s, more than {config.max_duration_s} s"
        )
    if min(facts.width, facts.height) < config.min_side:
        raise ItemError(
            "too-small", f"{name} is {facts.width}×{facts.height}, less than {config.min_side} pixels"
        )
    check_decodes(path, facts)
    return VideoRecord(
        video_id=fetched.sha256[:16],
        source_id=fetched.source_id,
        url=fetched.url,
        key=fetched.key,
        sha256=fetched.sha256,
        size_bytes=fetched.size_bytes,
        container=facts.container,
        codec=facts.codec,
        width=facts.width,
        height=facts.height,
        fps=facts.fps,
        num_frames=facts.num_frames,
        duration_s=facts.duration_s,
        split=fetched.split,
        title=fetched.title,
        author=fetched.author,
        license=fetched.license,
    )
