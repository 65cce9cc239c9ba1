"""Which fetched files are videos that the build can use."""

from __future__ import annotations

from pathlib import Path

from longvila.config.sourcing import ValidateConfig
from longvila.curation.fetching.fetch import FetchedVideo
from longvila.media.guard import Guard
from longvila.media.inspection import Inspection, Limits
from longvila.media.opening import check_name
from longvila.media.probe import Probe
from longvila.records import VideoRecord

VERSION = 2


def limits_of(config: ValidateConfig) -> Limits:
    """Return the limits as ``longvila.media.inspection`` takes them."""
    return Limits(
        min_duration_s=config.min_duration_s,
        max_duration_s=config.max_duration_s,
        min_side=config.min_side,
        max_pixels=config.max_pixels,
        max_fps=config.max_fps,
        allow_still=config.allow_still,
    )


def look_into(
    fetched: FetchedVideo, path: Path, config: ValidateConfig, *, guard: Guard, as_it_is: bool
) -> Inspection:
    """Probe a fetched file and decode its beginning, middle and end, in the guard's process.

    Raises ``ItemError``; reasons: bad-name, and those of ``media.inspection.inspect`` and ``media.guard``.
    """
    check_name(fetched.source_id)
    return guard.inspect(path, name=fetched.source_id, limits=limits_of(config), as_it_is=as_it_is)


def validate(fetched: FetchedVideo, path: Path, config: ValidateConfig) -> VideoRecord:
    """Say what one file is that is to be used as it is. Raises as ``look_into``."""
    with Guard(timeout_s=config.timeout_s, memory_bytes=config.memory_bytes) as guard:
        return video_record(fetched, look_into(fetched, path, config, guard=guard, as_it_is=True).facts)


def video_record(fetched: FetchedVideo, facts: Probe) -> VideoRecord:
    """Return the record of a fetched file that is used as it is."""
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
