"""Evaluation videos: what no training video may show, by name, by content, or by a passage of it.

They come as a source list (the videos are fetched and fingerprinted, and used for nothing else), as a file of
fingerprints that a benchmark's owner made, or as a text file of ids and addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from pydantic import Field

from longvila.errors import InputError
from longvila.records import Record, Source, VideoRecord, content_id

_TUBE_HOSTS = frozenset({"youtube.com", "m.youtube.com", "music.youtube.com", "youtube-nocookie.com"})
_TUBE_FOLDERS = frozenset({"shorts", "embed", "v", "live"})


class EvaluationVideo(Record):
    """One video of an evaluation list."""

    evaluation_id: str
    name: str = Field(description="as a person knows it: its source_id, or a benchmark's own id")
    listed_in: str = Field(description="the list that names it")
    names: tuple[str, ...] = Field(default=(), description="a source with one of these names is this video")
    sha256: str = ""
    duration_s: float = 0.0
    key: str = Field(default="", description="where its fingerprint lies; empty: only its names are known")


class Named(NamedTuple):
    """A video that an evaluation list names."""

    video: VideoRecord
    evaluation: EvaluationVideo
    by: str  # the name or the hash that both have


def from_sources(sources: Iterable[Source], listed_in: str) -> list[EvaluationVideo]:
    """What a source list says of evaluation videos, before any is fetched."""
    return [
        EvaluationVideo(
            evaluation_id=content_id("evaluation", listed_in, source.source_id),
            name=source.source_id,
            listed_in=listed_in,
            names=address_names(source.url),
            sha256=source.sha256 or "",
        )
        for source in sources
    ]


def read_ids(path: Path) -> list[EvaluationVideo]:
    """Read a text file of ids and addresses, one per line; ``#`` begins a comment. Raises ``InputError``."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The evaluation list {path} cannot be read ({error}). Give a text file in UTF-8, an id per line."
        ) from error
    # An id may begin with a dash, and an address may hold a #: only a # after a blank is a comment.
    listed = [line.strip() for line in lines if not line.lstrip().startswith("#")]
    listed = [line.split(" #")[0].strip() for line in listed]
    ids = list(dict.fromkeys(line for line in listed if line))
    if not ids:
        raise InputError(f"The evaluation list {path} names no video. Write one id or address per line.")
    return [
        EvaluationVideo(
            evaluation_id=content_id("evaluation", path.name, text),
            name=text,
            listed_in=path.name,
            names=address_names(text) if "/" in text else (text,),
        )
        for text in ids
    ]


def address_names(url: str) -> tuple[str, ...]:
    """The names that an address gives a video: itself without what varies, and its YouTube id."""
    parts = urlsplit(url)
    host = (parts.hostname or "").removeprefix("www.")
    if not host or parts.scheme == "file":
        return ()  # a path says nothing of what lies there
    tube = _tube_id(host, parts.path, parts.query)
    if tube:
        return (tube,)
    query = f"?{parts.query}" if parts.query else ""
    return (f"{host}{parts.path.rstrip('/')}{query}",)


def find_named(
    videos: Sequence[VideoRecord], sources: Mapping[str, Source], evaluation: Sequence[EvaluationVideo]
) -> list[Named]:
    """Return the training videos that are evaluation videos by a name or by their content.

    ``sources`` by source_id give the full addresses; a video without one is known by what its record says.
    """
    by_name = {name: item for item in reversed(evaluation) for name in item.names}
    by_hash = {item.sha256: item for item in reversed(evaluation) if item.sha256}
    found = []
    for video in videos:
        if video.split != "train":
            continue
        url = sources[video.source_id].url if video.source_id in sources else video.url
        names = (*address_names(url), video.source_id, PurePosixPath(urlsplit(url).path).stem)
        hashes = [text for text in (video.sha256, video.normalised_from) if text in by_hash]
        known = [name for name in names if name in by_name]
        if hashes:
            found.append(Named(video, by_hash[hashes[0]], f"sha256 {hashes[0]}"))
        elif known:
            found.append(Named(video, by_name[known[0]], f"the name {known[0]}"))
    return found


def _tube_id(host: str, path: str, query: str) -> str:
    """The id in a YouTube address; empty when it is none."""
    folders = [folder for folder in path.split("/") if folder]
    if host == "youtu.be":
        return folders[0] if folders else ""
    if host not in _TUBE_HOSTS:
        return ""
    if len(folders) > 1 and folders[0] in _TUBE_FOLDERS:
        return folders[1]
    return parse_qs(query).get("v", [""])[0]
