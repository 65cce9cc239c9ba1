"""Which samples a foreign tar holds. Names, links and order are looked at before anything is trusted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from longvila.data.parts import Place
from longvila.data.tar_members import Member, members
from longvila.errors import InputError
from longvila.storage import Storage

_FORM_OF = {
    "mp4": "video", "webm": "video", "mkv": "video", "mov": "video", "avi": "video", "m4v": "video",
    "jpg": "image", "jpeg": "image", "png": "image", "webp": "image",
}  # fmt: skip
_TEXTS = ("json", "txt")  # the first that is there counts
# WebDataset's rule: the key ends at the first dot of the name's last part.
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True)
class ForeignSample:
    """The parts of one sample that we know, each as (what it is, where it lies)."""

    key: str
    offset: int
    size: int
    media: tuple[str, Place] | None
    text: tuple[str, Place] | None


def samples_of(storage: Storage, tar: str) -> Iterator[ForeignSample]:
    """Yield the samples of a tar in order.

    Raises ``InputError`` for what no honest tar has: absolute names or ``..``, links and devices, the same
    name twice, or a sample whose parts do not stand together. Folders and hidden files are passed over.
    """
    seen: set[str] = set()
    parts: dict[str, Place] = {}
    key, start, stop = "", 0, 0
    for member in members(storage, tar):
        _check(tar, member)
        found = _NAME.match(member.name.removeprefix("./"))
        is_hidden = member.name.rpartition("/")[2].startswith(".")
        if found is None or is_hidden or not member.is_file or _META.search(member.name):
            continue
        if found[1] != key:
            if parts:
                yield _sample(key, parts, start, stop)
            key, parts, start = found[1], {}, member.header_offset
            if key in seen:
                raise _refused(tar, member, "its sample has come before, with others in between")
            seen.add(key)
        extension = found[2].lower()
        if extension in parts:
            raise _refused(tar, member, "it comes twice")
        parts[extension] = member.place
        stop = member.place.offset + member.place.size
    if parts:
        yield _sample(key, parts, start, stop)


def _sample(key: str, parts: dict[str, Place], start: int, stop: int) -> ForeignSample:
    media = next(((_FORM_OF[name], place) for name, place in parts.items() if name in _FORM_OF), None)
    text = next(((name, parts[name]) for name in _TEXTS if name in parts), None)
    return ForeignSample(key, start, stop - start, media, text)


def _check(tar: str, member: Member) -> None:
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or "\\" in member.name or "\0" in member.name:
        raise _refused(tar, member, "its name leads out of the archive")
    if not member.is_file and not member.is_folder:
        raise _refused(tar, member, "it is a link, a device or has holes, not a plain file")


def _refused(tar: str, member: Member, why: str) -> InputError:
    return InputError(f"{tar} is refused for {member.name[:100]!r}: {why}. Pack the archive anew without it.")
