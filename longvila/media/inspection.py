"""The verdict on one file: a video that may be used as it is, one to encode anew, or an ``ItemError``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from longvila.errors import ItemError
from longvila.media.normalise import reasons_to_normalise
from longvila.media.opening import shown_name
from longvila.media.probe import Probe, probe
from longvila.media.still import is_still
from longvila.media.verify import check_decodes, check_starts


@dataclass(frozen=True)
class Limits:
    """What a video must be."""

    min_duration_s: float = 0.0
    max_duration_s: float = float("inf")
    min_side: int = 1  # pixels
    max_pixels: int = 8192 * 8192
    max_fps: float = 1000.0
    allow_still: bool = False


@dataclass(frozen=True)
class Inspection:
    """What a usable file is, and in words why it should be encoded anew before it is used."""

    facts: Probe
    why_normalise: tuple[str, ...]


def inspect(path: Path, *, name: str, limits: Limits, as_it_is: bool = False) -> Inspection:
    """Probe a file, hold it against the limits, and decode parts of it.

    ``as_it_is``: the file is going to be used without encoding it anew, so each frame must be found by its
    time. Raises ``ItemError``; reasons: those of ``probe`` and of ``verify``, and truncated, too-short,
    too-long, too-small, too-fast, still.
    """
    name = shown_name(name)
    facts = probe(path, name=name, max_pixels=limits.max_pixels)
    _check_limits(facts, limits, name)
    why = reasons_to_normalise(facts)
    if facts.num_frames < 2 and facts.has_audio:
        raise ItemError("audio-only", f"{name} holds sound and a single picture, as a cover")
    if not limits.allow_still and is_still(path, facts):
        what = "it holds a single picture" if facts.num_frames < 2 else "its picture never changes"
        raise ItemError("still", f"{name}: {what}, in all its {facts.duration_s:,.1f} s")
    if as_it_is or not why:
        why += _check_parts(path, facts, name, as_it_is=as_it_is)
    else:
        check_starts(path, facts, name=name)
    return Inspection(facts, why)


def _check_limits(facts: Probe, limits: Limits, name: str) -> None:
    duration_s, width, height = facts.duration_s, facts.width, facts.height
    if facts.is_truncated:
        raise ItemError(
            "truncated", f"{name} is cut short: only {duration_s:.1f} s of what it promises is there"
        )
    if duration_s < limits.min_duration_s:
        raise ItemError("too-short", f"{name} lasts {duration_s:.2f} s, less than {limits.min_duration_s} s")
    if duration_s > limits.max_duration_s:
        raise ItemError("too-long", f"{name} lasts {duration_s:.0f} s, more than {limits.max_duration_s} s")
    if min(width, height) < limits.min_side:
        raise ItemError("too-small", f"{name} is {width}×{height}, less than {limits.min_side} pixels")
    if facts.fps > limits.max_fps:
        raise ItemError(
            "too-fast", f"{name} has {facts.fps:.0f} frames per second, more than {limits.max_fps:g}"
        )


def _check_parts(path: Path, facts: Probe, name: str, *, as_it_is: bool) -> tuple[str, ...]:
    try:
        check_decodes(path, facts, name=name, patient=as_it_is)
    except ItemError as error:
        if error.reason != "unseekable":
            raise
        check_starts(path, facts, name=name)
        return ("a container in which seeking misses frames",)
    return ()
