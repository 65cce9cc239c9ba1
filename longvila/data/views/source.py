"""What every view is made of: the samples of one split, and a count of those that a reader cannot take."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from longvila.data.reader import ShardReader
from longvila.data.views.building import Building
from longvila.data.views.turns import Shown, show
from longvila.data.views.video import encode_video
from longvila.errors import ItemError
from longvila.media.jpeg import FrameBlob
from longvila.records import Sample

MediaForm = Literal["mp4", "frames"]
_EXAMPLES = 5


class Item(NamedTuple):
    """One sample of the data set, ready to be written in another's words."""

    number: int
    sample: Sample
    shown: Shown


@dataclass
class Source:
    """The samples of a reader. ``items`` may be gone through once."""

    reader: ShardReader
    media: MediaForm
    crf: int
    scratch: Path
    on_progress: Callable[[int, int], None] | None = None
    num_samples: int = 0
    num_frames: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def items(self, *, accepts: Callable[[Item], None] | None = None) -> Iterator[Item]:
        """Yield the samples in order. What ``accepts`` raises ``ItemError`` for is counted and left out."""
        for number, sample in enumerate(self.reader.samples(range(len(self.reader)))):
            item = self._accepted(number, sample, accepts)
            if item is not None:
                self.num_samples += 1
                self.num_frames += sample.num_frames
                yield item
            if self.on_progress is not None:
                self.on_progress(number + 1, len(self.reader))

    def _accepted(self, number: int, sample: Sample, accepts: Callable[[Item], None] | None) -> Item | None:
        try:
            item = Item(number, sample, show(sample))
            if accepts is not None:
                accepts(item)
        except ItemError as error:
            self.left_out[error.reason] += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(error.detail)
            return None
        return item

    def blob(self, item: Item) -> FrameBlob:
        """Return the sample's JPEGs."""
        blob = self.reader.blob(item.number)
        assert blob is not None, f"{item.sample.key} has frames"
        return blob

    def video(self, item: Item) -> bytes:
        """Return the sample's frames as an MP4."""
        return encode_video(self.blob(item), item.sample.frame_times_s, crf=self.crf)

    def jpegs(self, item: Item) -> Iterator[tuple[str, bytes]]:
        """Yield the sample's frames as files, in the order of their names."""
        blob = self.blob(item)
        for i in range(blob.num_frames):
            yield frame_name(i), blob.data[int(blob.offsets[i]) : int(blob.offsets[i + 1])]


def frame_name(i: int) -> str:
    """Return the name of frame ``i``, so that names in alphabetical order are frames in order."""
    return f"{i:06d}.jpg"


def media_folder(key: str) -> str:
    """Return where the media of a sample lie: spread over 256 folders, for the sake of file systems."""
    return f"media/{hashlib.sha256(key.encode()).hexdigest()[:2]}/{key}"


def write_media(source: Source, building: Building, item: Item) -> list[str]:
    """Write a sample's media as files, and return their names: one video, or one name for each picture."""
    name = media_folder(item.sample.key)
    if item.shown.media == "none":
        return []
    if item.shown.media == "video" and source.media == "mp4":
        building.put(f"{name}.mp4", lambda: source.video(item))
        return [f"{name}.mp4"]
    building.put_folder(name, lambda: source.jpegs(item))
    return [f"{name}/{frame_name(i)}" for i in range(item.sample.num_frames)]
