"""What a file is by its first bytes, and whether it ends where its container says."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from longvila.media.boxes import mp4_end

_VIDEO_MAGIC = (
    b"ftyp",
    b"moov",
    b"mdat",
    b"\x1aE\xdf\xa3",
    b"OggS",
    b"FLV\x01",
    b"\x00\x00\x01\xba",
    b"\x30\x26\xb2\x75",
)
_MAGIC = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive (or an Office document)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3", "a database"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to"),
    (b"ffconcat", "a list of other files"),
    (b"#EXTM3U", "a play list, not the video it lists"),
    (b"d8:announce", "a torrent, not the file it describes"),
)  # fmt: skip
_ASF = b"\x30\x26\xb2\x75"
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MPEGTS_SIZES = (188, 192, 204)
_SYNC_SPOTS = 64
_OGG_LAST = 4  # flag of a page
_HOLE_BYTES = 2048
_TAIL_BYTES = 1 << 16


def is_video_head(head: bytes) -> bool:
    """Whether a file's first bytes are those of a video container."""
    start = head[:64]
    riff = start[:4] == b"RIFF" and start[8:11] == b"AVI"
    return riff or any(magic in start for magic in _VIDEO_MAGIC)


def recognise(head: bytes) -> str | None:
    """Say in words what a file is that is no video; None when its first bytes tell nothing."""
    for magic, words in _MAGIC:
        if head.startswith(magic):
            return words
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page (an error page in place of the file?)"
    if text.startswith((b"<?xml", b"<mpd")):
        return "an XML document"
    if text.startswith((b"{", b"[")) and _is_text(head):
        return "JSON text (an error message in place of the file?)"
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    return "plain text" if _is_text(head) else None


def missing_bytes(path: Path) -> int:
    """Return how many bytes the container says are there and are not; 0 when it is whole or does not say."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return max(0, mp4_end(file, size) - size)
        if head[:4] == b"RIFF" and head[8:11] == b"AVI":
            return max(0, int.from_bytes(head[4:8], "little") + 8 - size) if head[4:8] != b"\xff" * 4 else 0
        if head[:4] == b"\x1aE\xdf\xa3":
            return max(0, _matroska_end(head, size) - size)
        if head[:4] == b"OggS":
            return _ogg_missing(file, size)
        if head[:6] in (b"GIF87a", b"GIF89a"):
            file.seek(max(0, size - 64))
            return 0 if file.read().rstrip(b"\0").endswith(b";") else 1
        if head[:4] == _ASF:
            return _asf_missing(file, size)
        return _mpegts_missing(file, size)


def _is_text(head: bytes) -> bool:
    try:
        return all(c.isprintable() or c in "\t\r\n" for c in head[: len(head) - len(head) % 4 - 4].decode())
    except UnicodeDecodeError:
        return False


def _matroska_end(head: bytes, size: int) -> int:
    """Return where the segment ends, by its own word; ``size`` when it does not say."""
    length, after = _ebml_size(head, 4)
    if length is None or head[after + length : after + length + 4] != b"\x18S\x80g":
        return size
    segment, start = _ebml_size(head, after + length + 4)
    return size if segment is None else start + segment


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """Read a variable-length size and return it with the position behind it; None for unknown."""
    if at >= len(data) or data[at] == 0:
        return None, at
    num_bytes = 9 - data[at].bit_length()
    raw = data[at : at + num_bytes]
    value = int.from_bytes(raw, "big") & ((1 << 7 * num_bytes) - 1)
    unknown = len(raw) < num_bytes or value == (1 << 7 * num_bytes) - 1
    return (None if unknown else value), at + num_bytes


def _ogg_missing(file: BinaryIO, size: int) -> int:
    """Return what the last page lacks; 1 when it does not say that it is the last."""
    file.seek(max(0, size - _TAIL_BYTES - 256))
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return 1
    lacing = tail[at + 27 : at + 27 + tail[at + 26]]
    missing = at + 27 + tail[at + 26] + sum(lacing) - len(tail)
    is_last = bool(tail[at + 5] & _OGG_LAST)
    return max(missing, 0 if is_last else 1)


def _asf_missing(file: BinaryIO, size: int) -> int:
    """Return how much shorter a file is than its properties say; live recordings leave that at 0."""
    file.seek(0)
    header = file.read(_TAIL_BYTES)
    at = header.find(_ASF_FILE_PROPERTIES)
    said = int.from_bytes(header[at + 40 : at + 48], "little") if at >= 0 else 0
    return max(0, said - size)


def _mpegts_missing(file: BinaryIO, size: int) -> int:
    """Return what the last packet of a transport stream lacks."""
    length = mpegts_packet(file)
    rest = size % length if length else 0
    if not length or not rest:
        return 0
    file.seek(size - rest + (4 if length == 192 else 0))
    return length - rest if file.read(1) == b"G" else 0  # else something was put behind the last packet


def is_hole(path: Path, start: int, stop: int) -> bool:
    """Whether the middle of ``[start, stop)`` holds nothing but zeros."""
    with path.open("rb") as file:
        file.seek((start + stop - _HOLE_BYTES) // 2)
        return not file.read(_HOLE_BYTES).strip(b"\0")


def mpegts_packet(file: BinaryIO) -> int | None:
    """Return the length of a transport stream's packets, by the sync bytes of the first; None for others."""
    for length in _MPEGTS_SIZES:
        offset = 4 if length == 192 else 0
        file.seek(0)
        start = file.read(length * 5)
        if len(start) == length * 5 and all(start[offset + i * length] == 0x47 for i in range(5)):
            return length
    return None


def lost_sync(path: Path) -> int | None:
    """Return where in a transport stream there are no packets, of some places; None when there are."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = mpegts_packet(file)
        if length is None:
            return None
        span = 5 * length
        for i in range(_SYNC_SPOTS):
            at = (size - span) * i // (_SYNC_SPOTS - 1)
            file.seek(at)
            piece = file.read(span)
            if not any(all(piece[start + i * length] == 0x47 for i in range(4)) for start in range(length)):
                return at
    return None
