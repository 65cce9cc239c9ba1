"""One decode pass over a video that feeds everything: shots, hashes, measures and the frames for training.

Decoding is four fifths of the cost of finding shots, so it is done once.
N frames of a strip, H × W pixels.
"""

from __future__ import annotations

import io
import threading
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from longvila.config.footage import FramesConfig, ShotConfig
from longvila.curation.duplicates.fingerprint import Fingerprint, Fingerprinter
from longvila.curation.duplicates.store import store_fingerprint
from longvila.curation.sampling import SAMPLES_PER_S, Measures, Sampler
from longvila.curation.shot_detection.making import make_detector
from longvila.curation.shot_detection.pictures import small_picture
from longvila.curation.shots import Cut, cut_times, make_shots
from longvila.errors import InputError
from longvila.media.decode import decode_all, sample_times, to_picture
from longvila.media.jpeg import FrameBlob, pack_frames
from longvila.media.probe import probe
from longvila.records import Record, Shot, Split, VideoRecord, content_id
from longvila.storage import Workspace

VERSION = 2
THUMBS_PER_S = 1.0
_LONG_SIDE = 160  # of the picture in which light, colours and motion are measured
_THUMB_HEIGHT = 90
_THUMB_QUALITY = 80
_LOADING = (
    threading.Lock()
)  # numpy parses headers with ast, which two threads may not do at once in Python 3.11


class Scan(Record):
    """What one pass over a video found, and where the arrays and the frames lie."""

    scan_id: str
    video_id: str
    split: Split
    key: str
    fingerprint_key: str
    num_samples: int
    num_frames: int
    frames_fps: float
    frames_size: int
    duration_s: float
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class FrameStrip:
    """The frames of one video at the training rate and size, as JPEGs."""

    blob: FrameBlob
    times_s: np.ndarray  # float64 [N]

    def part(self, start: int, stop: int) -> FrameBlob:
        """Return the frames ``[start, stop)`` without encoding them again."""
        offsets = self.blob.offsets[start : stop + 1]
        return FrameBlob(self.blob.data[int(offsets[0]) : int(offsets[-1])], offsets - offsets[0])


@dataclass(frozen=True)
class Scanned:
    """The result of ``scan_video`` before it is stored."""

    measures: Measures
    strip: FrameStrip
    thumbs: FrameStrip
    fingerprint: Fingerprint
    cuts: list[Cut]
    duration_s: float


def scan_video(path: Path, *, shots: ShotConfig, frames: FramesConfig) -> Scanned:
    """Decode a video once. Raises ``ItemError`` where it cannot be decoded."""
    facts = probe(path)
    detector = make_detector(shots, facts)
    scale = _LONG_SIDE / max(facts.width, facts.height)
    small = (max(8, round(facts.height * scale)), max(8, round(facts.width * scale)))
    thumb = (_THUMB_HEIGHT, max(2, round(_THUMB_HEIGHT * facts.width / facts.height)))
    sampler, fingerprinter = Sampler(), Fingerprinter()
    strip = _Strip(sample_times(facts.duration_s, frames.fps), quality=frames.jpeg_quality)
    thumbs = _Strip(sample_times(facts.duration_s, THUMBS_PER_S), quality=_THUMB_QUALITY)
    sample_times_s = sample_times(facts.duration_s, SAMPLES_PER_S)
    due = [
        np.bincount(facts.frames_at(times_s), minlength=facts.num_frames)
        for times_s in (sample_times_s, strip.times_s, thumbs.times_s)
    ]
    for index, (_, frame) in enumerate(decode_all(path, facts)):
        detector.add(small_picture(frame, facts.rotation, detector.picture_shape))
        if due[0][index]:
            picture = np.ascontiguousarray(to_picture(frame, facts.rotation, small, layout="bgr24"))
            grey_HW = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
            for _ in range(due[0][index]):
                sampler.add(picture, grey_HW)
                fingerprinter.add(grey_HW)
        if due[1][index]:
            strip.add(to_picture(frame, facts.rotation, (frames.size, frames.size)), times=due[1][index])
        if due[2][index]:
            thumbs.add(to_picture(frame, facts.rotation, thumb), times=due[2][index])
    return Scanned(
        sampler.measures(sample_times_s),
        strip.strip(),
        thumbs.strip(),
        fingerprinter.fingerprint(),
        cut_times(detector.boundaries(), facts.times_s),
        facts.duration_s,
    )


def store_scan(
    workspace: Workspace, video: VideoRecord, scanned: Scanned, *, shots: ShotConfig, frames: FramesConfig
) -> Scan:
    """Write a scan's arrays to the workspace and return the record that names them."""
    scan_id = content_id("scan", VERSION, video.video_id, shots.model_dump(), frames.model_dump())
    key = f"scans/{video.video_id}-{scan_id}.npz"
    fingerprint_key = store_fingerprint(workspace.storage, video.video_id, scanned.fingerprint)
    workspace.storage.put_bytes(key, _dump(scanned))
    return Scan(
        scan_id=scan_id,
        video_id=video.video_id,
        split=video.split,
        key=key,
        fingerprint_key=fingerprint_key,
        num_samples=len(scanned.measures.times_s),
        num_frames=scanned.strip.blob.num_frames,
        frames_fps=frames.fps,
        frames_size=frames.size,
        duration_s=scanned.duration_s,
        shots=tuple(make_shots(video.video_id, scanned.duration_s, scanned.cuts, shots)),
    )


def load_measures(workspace: Workspace, scan: Scan) -> Measures:
    """Read what was measured of a video."""
    arrays = _load(workspace, scan, [field.name for field in fields(Measures)])
    return Measures(**arrays)


def load_strip(workspace: Workspace, scan: Scan) -> FrameStrip:
    """Read the frames of a video at the training rate and size."""
    return _load_strip(workspace, scan, "strip")


def load_thumbs(workspace: Workspace, scan: Scan) -> FrameStrip:
    """Read one small picture per second of a video, in its own shape."""
    return _load_strip(workspace, scan, "thumbs")


def _load_strip(workspace: Workspace, scan: Scan, name: str) -> FrameStrip:
    arrays = _load(workspace, scan, [f"{name}_data", f"{name}_offsets", f"{name}_times"])
    blob = FrameBlob(arrays[f"{name}_data"].tobytes(), arrays[f"{name}_offsets"])
    return FrameStrip(blob, arrays[f"{name}_times"])


def _dump(scanned: Scanned) -> bytes:
    arrays = {field.name: getattr(scanned.measures, field.name) for field in fields(Measures)}
    for name, strip in (("strip", scanned.strip), ("thumbs", scanned.thumbs)):
        arrays[f"{name}_data"] = np.frombuffer(strip.blob.data, dtype=np.uint8)
        arrays[f"{name}_offsets"] = strip.blob.offsets
        arrays[f"{name}_times"] = strip.times_s
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _load(workspace: Workspace, scan: Scan, names: list[str]) -> dict[str, np.ndarray]:
    path = workspace.fetch_local(scan.key)
    try:
        with _LOADING, np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"The scan {path} is damaged ({error}). Delete it and build again.") from error


class _Strip:
    """Gathers frames as JPEGs."""

    def __init__(self, times_s: np.ndarray, *, quality: int) -> None:
        self.times_s = times_s
        self._quality = quality
        self._jpegs: list[bytes] = []

    def add(self, picture_HW3: np.ndarray, *, times: int) -> None:
        jpeg = pack_frames(picture_HW3[None], quality=self._quality).data
        self._jpegs += [jpeg] * int(times)

    def strip(self) -> FrameStrip:
        offsets = np.concatenate([[0], np.cumsum([len(jpeg) for jpeg in self._jpegs])]).astype(np.int64)
        return FrameStrip(FrameBlob(b"".join(self._jpegs), offsets), self.times_s)
