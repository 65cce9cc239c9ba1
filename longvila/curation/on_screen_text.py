"""Text that is shown in the picture, read by an OCR package from the frames for training.

Only what is read alike in two frames is believed: what a reader sees in leaves and windows changes from frame
to frame, a title does not. N frames of a strip, H × W pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from longvila.config.language import ReadTextConfig
from longvila.curation.scan import FrameStrip
from longvila.errors import ConfigError, MachineError
from longvila.media.jpeg import decode_frame
from longvila.records import Record, VideoRecord, content_id
from longvila.storage import Workspace

VERSION = 1
MIN_SIZE = 256  # pixels per side of the frames; smaller ones hold no text that can be read
_MIN_LETTERS = 3
_SAME = 0.75  # of two readings of one text
_SAME_PICTURE = 2  # of 255 levels, largest difference anywhere below which a frame is not read again
_PLAIN = 12  # of 255 levels between darkest and lightest; so plain a picture holds no text


class Line(NamedTuple):
    """One line as it was read from one picture."""

    text: str
    score: float  # 0 to 1, the reader's own


class TextReader(Protocol):
    """Reads the text in a picture."""

    name: str

    def read(self, picture_HW3: np.ndarray) -> list[Line]:
        """Return the lines in an RGB uint8 picture, from top to bottom."""
        ...


class SeenText(Record):
    """A text and when it is shown, as far as frames were read: from the first to the last that has it."""

    text: str
    start_s: float
    stop_s: float
    score: float


class RapidReader:
    """PP-OCR's models through rapidocr-onnxruntime, which carries those for English and Chinese.

    Raises ``MachineError`` where the package is missing. Spaces between words are sometimes lost.
    """

    def __init__(self, config: ReadTextConfig) -> None:
        try:
            from rapidocr_onnxruntime import RapidOCR
        except ImportError as error:
            raise MachineError(
                "captions.read_text needs the package rapidocr-onnxruntime. "
                "Install it (pip install 'longvila-pipeline[ocr]'), or leave read_text out of the recipe."
            ) from error
        models = {"rec_model_path": config.model_path, "rec_keys_path": config.keys_path}
        given = {name: path for name, path in models.items() if path is not None}
        self.name = "rapidocr" if not given else f"rapidocr:{config.model_path}"
        self._engine = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1, **given)

    def read(self, picture_HW3: np.ndarray) -> list[Line]:
        """Return the lines in an RGB picture, from top to bottom."""
        found, _ = self._engine(np.ascontiguousarray(picture_HW3[..., ::-1]))
        return [Line(" ".join(str(text).split()), float(score)) for _, text, score in found or []]


def texts_of_video(
    workspace: Workspace,
    video: VideoRecord,
    load_strip: Callable[[], FrameStrip],
    reader: TextReader,
    config: ReadTextConfig,
) -> list[SeenText]:
    """Read a video's frames, or return what was read of the same frames before.

    Raises ``ConfigError`` when the frames are too small to be read.
    """
    strip = load_strip()
    digest = hashlib.sha256(strip.blob.data).hexdigest()
    made_of = content_id("texts", VERSION, digest, reader.name, config.model_dump(mode="json"))
    key = f"texts/{video.video_id}-{made_of}.json"
    if workspace.storage.exists(key):
        rows = json.loads(workspace.storage.get_bytes(key))
        return [SeenText.model_validate(row) for row in rows]
    found = read_texts(strip, reader, config, aspect=video.width / video.height)
    dumped = json.dumps([text.model_dump(mode="json") for text in found], ensure_ascii=False)
    workspace.storage.put_bytes(key, dumped.encode())
    return found


def read_texts(
    strip: FrameStrip, reader: TextReader, config: ReadTextConfig, *, aspect: float
) -> list[SeenText]:
    """Read a frame every ``config.every_s`` seconds, and its neighbour where a text is in no other.

    ``aspect`` is the width of the video's own picture over its height: frames for training are squares.
    """
    pages = _Pages(strip, reader, aspect=aspect, min_score=config.min_score)
    tracks: list[_Track] = []
    open_tracks: list[_Track] = []
    for i in _evenly(strip.times_s, config.every_s):
        still_open = []
        for line in pages.lines(i):
            track = _find(open_tracks, line) or _Track(first=i)
            track.add(i, line)
            still_open.append(track)
            if len(track.frames) == 1:
                tracks.append(track)
        open_tracks = list({id(track): track for track in still_open}.values())
    for track in tracks:
        if len(track.frames) == 1:
            _confirm(track, pages, len(strip.times_s))
    return [track.seen(strip.times_s) for track in tracks if len(track.frames) > 1]


def between(texts: Iterable[SeenText], start_s: float, stop_s: float) -> list[SeenText]:
    """Return the texts that are shown in ``[start_s, stop_s)``, each as long as it is shown there."""
    return [
        text.model_copy(update={"start_s": max(text.start_s, start_s), "stop_s": min(text.stop_s, stop_s)})
        for text in texts
        if text.start_s < stop_s and text.stop_s >= start_s
    ]


@dataclass
class _Track:
    """One text over the frames that show it."""

    first: int
    frames: set[int] = field(default_factory=set)
    lines: list[Line] = field(default_factory=list)

    def add(self, frame: int, line: Line) -> None:
        self.frames.add(frame)
        self.lines.append(line)

    def seen(self, times_s: np.ndarray) -> SeenText:
        """Return the reading that most frames agree on, of these the surest."""
        readings = [line.text for line in self.lines]
        best = max(self.lines, key=lambda line: (readings.count(line.text), line.score, line.text))
        return SeenText(
            text=best.text,
            start_s=round(float(times_s[min(self.frames)]), 3),
            stop_s=round(float(times_s[max(self.frames)]), 3),
            score=round(best.score, 3),
        )


class _Pages:
    """The lines of the frames of a strip, each frame read once; a frame like the last one is not read."""

    def __init__(self, strip: FrameStrip, reader: TextReader, *, aspect: float, min_score: float) -> None:
        self._strip = strip
        self._reader = reader
        self._aspect = aspect
        self._min_score = min_score
        self._known: dict[int, list[Line]] = {}
        self._last: tuple[np.ndarray, list[Line]] | None = None

    def lines(self, i: int) -> list[Line]:
        """Return the lines of frame ``i`` that are sure and long enough."""
        if i not in self._known:
            self._known[i] = self._read(i)
        return self._known[i]

    def _read(self, i: int) -> list[Line]:
        picture_HW3 = decode_frame(self._strip.part(i, i + 1).data)
        if min(picture_HW3.shape[:2]) < MIN_SIZE:
            height, width = picture_HW3.shape[:2]
            raise ConfigError(
                f"captions.read_text cannot read frames of {width} × {height} pixels. "
                f"Set data.frames.size to {MIN_SIZE} or more, or leave read_text out."
            )
        small_hw3 = cv2.resize(picture_HW3, (96, 96), interpolation=cv2.INTER_AREA)
        grey_hw = cv2.cvtColor(small_hw3, cv2.COLOR_RGB2GRAY)
        if self._last is not None and float(cv2.absdiff(grey_hw, self._last[0]).max()) < _SAME_PICTURE:
            return self._last[1]
        is_plain = int(grey_hw.max()) - int(grey_hw.min()) < _PLAIN
        lines = [] if is_plain else self._reader.read(self._own_shape(picture_HW3))
        sure = [
            line for line in lines if line.score >= self._min_score and _letters(line.text) >= _MIN_LETTERS
        ]
        self._last = (grey_hw, sure)
        return sure

    def _own_shape(self, picture_HW3: np.ndarray) -> np.ndarray:
        """Stretch a square to the shape of the video's picture; no side gets shorter."""
        height, width = picture_HW3.shape[:2]
        stretch = self._aspect * height / width
        size = (round(width * max(stretch, 1.0)), round(height * max(1 / stretch, 1.0)))
        return cv2.resize(picture_HW3, size, interpolation=cv2.INTER_CUBIC)


def _evenly(times_s: np.ndarray, every_s: float) -> list[int]:
    """Return the frames that begin each ``every_s`` seconds."""
    if not len(times_s):
        return []
    turns = np.floor((times_s - times_s[0]) / every_s + 1e-6)
    return [0, *(np.flatnonzero(np.diff(turns) > 0) + 1).tolist()]


def _find(tracks: Sequence[_Track], line: Line) -> _Track | None:
    """Return the track whose last reading is most like a line, when it is alike enough."""
    scored = [(_likeness(track.lines[-1].text, line.text), track) for track in tracks]
    best = max(scored, key=lambda item: item[0], default=None)
    return best[1] if best is not None and best[0] >= _SAME else None


def _confirm(track: _Track, pages: _Pages, num_frames: int) -> None:
    """Look for the text of one frame in the frames beside it."""
    for neighbour in (track.first + 1, track.first - 1):
        if not 0 <= neighbour < num_frames or len(track.frames) > 1:
            continue
        for line in pages.lines(neighbour):
            if _likeness(track.lines[0].text, line.text) >= _SAME:
                track.add(neighbour, line)
                break


def _likeness(first: str, second: str) -> float:
    """How alike two readings are, 0 to 1, spaces and case aside."""
    plain = [text.replace(" ", "").casefold() for text in (first, second)]
    return SequenceMatcher(None, *plain, autojunk=False).ratio()


def _letters(text: str) -> int:
    return sum(character.isalnum() for character in text)
