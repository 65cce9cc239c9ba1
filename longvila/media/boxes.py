"""What the header of an MP4 or QuickTime file claims. FFmpeg looks past most of it, players do not."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MAX_MOOV_BYTES = 256 * 2**20
_INSIDE = (b"trak", b"mdia", b"minf", b"stbl")
_SIZE_AT = 40  # of width and height in a sample description, whose first entry is a picture's
_UNKNOWN = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


class Claims(NamedTuple):
    """What the header says."""

    duration_s: float  # the longest of the whole and of its tracks; 0 when nothing is said
    sizes: tuple[tuple[int, int], ...]  # (width, height) of the video tracks, as stored


def read_claims(path: Path) -> Claims | None:
    """Return what the header says; None for other containers and for a header that is not there."""
    with path.open("rb") as file:
        moov = _moov(file)
    if moov is None:
        return None
    duration_s, sizes, handler = 0.0, [], b""
    for kind, start, stop in _walk(moov, 0, len(moov)):
        if kind in (b"mvhd", b"mdhd"):
            duration_s = max(duration_s, _duration_s(moov[start:stop]))
        elif kind == b"hdlr" and moov[start + 4 : start + 8] != b"dhlr":
            handler = moov[start + 8 : start + 12]
        elif kind == b"stsd" and handler == b"vide" and stop - start >= _SIZE_AT + 4:
            sizes.append(struct.unpack_from(">HH", moov, start + _SIZE_AT))
    return Claims(duration_s, tuple(sizes))


def mp4_end(file: BinaryIO, size: int) -> int:
    """Walk the boxes of the top level and return where the last of them ends, by its own word."""
    return max((end for _, _, end in _top_level(file, size)), default=0)


def _top_level(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start of the content, end) of the boxes, up to the first bytes that are none."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length, kind = struct.unpack(">I4s", header[:8])
        start = at + 8
        if length == 1 and len(header) == 16:
            length, start = int.from_bytes(header[8:], "big"), at + 16
        if length == 0:
            length = size - at
        if length < 8 or not all(32 <= byte < 127 for byte in kind):
            return
        yield kind, start, at + length
        at += length


def _moov(file: BinaryIO) -> bytes | None:
    file.seek(0, 2)
    size = file.tell()
    for kind, start, end in _top_level(file, size):
        if kind == b"moov" and end <= size and end - start <= _MAX_MOOV_BYTES:
            file.seek(start)
            return file.read(end - start)
    return None


def _walk(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, stop) of the contents of all boxes inside a moov box that matter here."""
    while start + 8 <= stop:
        length, kind = struct.unpack_from(">I4s", data, start)
        if length < 8 or start + length > stop:
            return
        if kind in _INSIDE:
            yield from _walk(data, start + 8, start + length)
        else:
            yield kind, start + 8, start + length
        start += length


def _duration_s(content: bytes) -> float:
    if len(content) < 32:
        return 0.0
    layout, at = (">IQ", 20) if content[0] == 1 else (">II", 12)
    timescale, duration = struct.unpack_from(layout, content, at)
    return 0.0 if not timescale or duration in _UNKNOWN else duration / timescale
