"""Compose a video from pieces of real shots; every boundary and every mixed frame is known.

H × W pixels. Frames are counted from 0.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np

from longvila.media.decode import decode_frames
from longvila.media.probe import Probe, probe

Kind = Literal["cut", "dissolve", "fade"]


class Piece(NamedTuple):
    """Frames ``[start, stop)`` of a file, all of one shot."""

    path: Path
    start: int
    stop: int


class Truth(NamedTuple):
    """A boundary: the last frame wholly of the old shot and the first wholly of the new one."""

    last_old: int
    first_new: int
    kind: Kind


@dataclass(frozen=True)
class Plan:
    """Which pieces follow one another and how; ``lengths`` are the mixed frames of each transition."""

    pieces: tuple[Piece, ...]
    kinds: tuple[Kind, ...]
    lengths: tuple[int, ...]
    levels: tuple[int, ...]  # what a fade goes through: 0 black, 255 white


def plan(pieces: Sequence[Piece], *, num_shots: int, seed: int, fps: float = 24.0) -> Plan:
    """Draw shots of 1 to 5 s and transitions: two of five cuts, two of five dissolves, one of five fades.

    Dissolves last 0.2 to 1.5 s, fades 0.4 to 2 s; neighbours are of different shots.
    """
    chance = random.Random(seed)
    drawn: list[Piece] = []
    kinds: list[Kind] = []
    lengths: list[int] = []
    levels: list[int] = []
    while len(drawn) < num_shots:
        piece = chance.choice(pieces)
        if drawn and (piece.path, piece.start) == (drawn[-1].path, drawn[-1].start):
            continue
        drawn.append(piece)
    cut: list[Piece] = []
    for piece in drawn:
        length = min(piece.stop - piece.start, round(chance.uniform(1.0, 5.0) * fps))
        start = chance.randint(piece.start, piece.stop - length)
        cut.append(Piece(piece.path, start, start + length))
    for first, second in pairwise(cut):
        kind: Kind = chance.choices(("cut", "dissolve", "fade"), weights=(2, 2, 1))[0]
        longest = min(first.stop - first.start, second.stop - second.start) // 2 - 3
        wanted = {"cut": 0.0, "dissolve": chance.uniform(0.2, 1.5), "fade": chance.uniform(0.4, 2.0)}[kind]
        kinds.append(kind)
        lengths.append(max(3, min(longest, round(wanted * fps))) if kind != "cut" else 0)
        levels.append(chance.choices((0, 255), weights=(3, 1))[0])
    return Plan(tuple(cut), tuple(kinds), tuple(lengths), tuple(levels))


def compose(made: Plan, path: Path, *, size: tuple[int, int], fps: int = 24, crf: int = 23) -> list[Truth]:
    """Encode the planned video (H.264, ``size`` is height and width) and return its boundaries."""
    truths: list[Truth] = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast"}
        for count, (picture, boundary) in enumerate(_pictures(made, size)):
            if boundary is not None:
                truths.append(Truth(count - 1, count + boundary[1], boundary[0]))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return truths


def _pictures(made: Plan, size: tuple[int, int]) -> Iterator[tuple[np.ndarray, tuple[Kind, int] | None]]:
    """Yield each picture; with the first one after a shot's last, the transition and its mixed frames."""
    tail = np.empty((0, *size, 3), dtype=np.uint8)
    for index, piece in enumerate(made.pieces):
        frames = _read(piece, size)
        length = made.lengths[index - 1] if index else 0
        starts: tuple[Kind, int] | None = None
        if index:
            starts = (made.kinds[index - 1], length)
            mixed = _mix(tail, frames[:length], made.kinds[index - 1], made.levels[index - 1])
            for picture in mixed:
                yield picture, starts
                starts = None
        kept = made.lengths[index] if index < len(made.lengths) else 0
        for picture in frames[length : len(frames) - kept]:
            yield picture, starts
            starts = None
        tail = frames[len(frames) - kept :]


def _mix(old: np.ndarray, new: np.ndarray, kind: Kind, level: int) -> Iterator[np.ndarray]:
    length = len(new)
    for i in range(length):
        share = (i + 1) / (length + 1)
        if kind == "dissolve":
            mixed = old[i] * (1 - share) + new[i] * share
        else:  # down in the first 45 %, up in the last
            seen = old[i] if share < 0.5 else new[i]
            strength = max(0.0, (abs(share - 0.5) - 0.05) / 0.45)
            mixed = level + (seen - float(level)) * strength
        yield np.rint(mixed).astype(np.uint8)


def _read(piece: Piece, size: tuple[int, int]) -> np.ndarray:
    facts = _facts(piece.path)
    return decode_frames(piece.path, facts.times_s[piece.start : piece.stop], size=size, facts=facts)


@lru_cache(maxsize=32)
def _facts(path: Path) -> Probe:
    return probe(path)
