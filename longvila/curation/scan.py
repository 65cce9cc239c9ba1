"""One decode pass over a video that feeds everything: shots, hashes, measures and the frames for training.

Decoding is four fifths of the cost of finding shots, so it is done once.
H × W pixels.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from longvila.config.footage import FramesConfig, ShotConfig
from longvila.curation.duplicates.fingerprint import Fingerprint, Fingerprinter
from longvila.curation.duplicates.store import store_fingerprint
from longvila.curation.sampling import SAMPLES_PER_S, Measures, Sampler
from longvila.curation.scan_file import FrameStrip, StripSpool, read_arrays, read_strip, write_scan
from longvila.curation.shot_detection.making import make_detector
from longvila.curation.shot_detection.pictures import small_picture
from longvila.curation.shots import Cut, cut_times, make_shots
from longvila.media.decode import decode_all, sample_times, to_picture
from longvila.media.probe import probe
from longvila.records import Record, Shot, Split, VideoRecord, content_id
from longvila.storage import Workspace
from longvila.storage.files import os_errors

VERSION = 2
THUMBS_PER_S = 1.0
_LONG_SIDE = 160  # of the picture in which light, colours and motion are measured
_THUMB_HEIGHT = 90
_THUMB_QUALITY = 80


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
class Scanned:
    """The result of ``scan_video`` before it is stored."""

    measures: Measures
    strip: StripSpool
    thumbs: StripSpool
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
    strip = StripSpool(sample_times(facts.duration_s, frames.fps), quality=frames.jpeg_quality)
    thumbs = StripSpool(sample_times(facts.duration_s, THUMBS_PER_S), quality=_THUMB_QUALITY)
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
        strip,
        thumbs,
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
    with tempfile.TemporaryDirectory(dir=workspace.scratch("scan")) as folder:
        path = Path(folder) / "scan.npz"
        arrays = {field.name: getattr(scanned.measures, field.name) for field in fields(Measures)}
        with os_errors(f"write {path}"):
            write_scan(path, arrays, {"strip": scanned.strip, "thumbs": scanned.thumbs})
        workspace.storage.put_file(key, path)
    return Scan(
        scan_id=scan_id,
        video_id=video.video_id,
        split=video.split,
        key=key,
        fingerprint_key=fingerprint_key,
        num_samples=len(scanned.measures.times_s),
        num_frames=scanned.strip.num_frames,
        frames_fps=frames.fps,
        frames_size=frames.size,
        duration_s=scanned.duration_s,
        shots=tuple(make_shots(video.video_id, scanned.duration_s, scanned.cuts, shots)),
    )


def load_measures(workspace: Workspace, scan: Scan) -> Measures:
    """Read what was measured of a video."""
    names = [field.name for field in fields(Measures)]
    return Measures(**read_arrays(workspace.fetch_local(scan.key), names))


def load_strip(workspace: Workspace, scan: Scan) -> FrameStrip:
    """Read the frames of a video at the training rate and size."""
    return read_strip(workspace.fetch_local(scan.key), "strip")


def load_thumbs(workspace: Workspace, scan: Scan) -> FrameStrip:
    """Read one small picture per second of a video, in its own shape."""
    return read_strip(workspace.fetch_local(scan.key), "thumbs")
