"""What a video file really holds, read from its packets and its first frame rather than from its header.

Headers lie: of the length after a cut, of the frame rate when it varies, of everything when the file is
truncated. Reading all packets without decoding them costs about a thousandth of decoding.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longvila.errors import InputError, ItemError, MachineError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# A header that promises this much more than the packets hold belongs to a file that was cut short.
_MISSING_SHARE = 0.02
_MISSING_S = 1.0
_ROUNDING_S = 1e-6
_MAGIC = (b"ftyp", b"moov", b"mdat", b"\x1aE\xdf\xa3", b"RIFF", b"OggS", b"FLV\x01", b"\x00\x00\x01\xba")


@dataclass(frozen=True)
class Probe:
    """The facts of one video file. Times are seconds after its first frame."""

    container: str
    codec: str
    width: int  # as shown, after rotation
    height: int
    rotation: int  # degrees clockwise that the stored picture is turned for showing: 0, 90, 180 or 270
    fps: float  # the mean
    num_frames: int
    duration_s: float
    start_s: float  # the first frame's time in the file's own clock
    has_audio: bool
    is_variable_rate: bool
    is_truncated: bool  # the header promises more than the packets hold
    time_base: Fraction
    pts: np.ndarray = field(repr=False, compare=False)  # int64, sorted, one per frame, in time_base
    keyframe_pts: np.ndarray = field(repr=False, compare=False)  # int64, sorted

    @property
    def times_s(self) -> np.ndarray:
        """When each frame is shown, float64 ``[num_frames]``, from 0."""
        return (self.pts - self.pts[0]) * float(self.time_base)

    def frames_at(self, times_s: np.ndarray) -> np.ndarray:
        """Return the index of the frame shown at each time, int64; ``InputError`` outside the video."""
        times_s = np.asarray(times_s, dtype=np.float64)
        if times_s.size and (times_s.min() < 0 or times_s.max() >= self.duration_s):
            raise InputError(
                f"time {times_s.min():.3f} s or {times_s.max():.3f} s is outside the video, "
                f"which lasts [0, {self.duration_s:.3f}) s. Ask for times inside."
            )
        return np.searchsorted(self.times_s, times_s + _ROUNDING_S, side="right") - 1


def probe(path: str | Path) -> Probe:
    """Read the facts of a video file.

    Raises ``InputError`` when there is no such file, and ``ItemError`` when it is not a usable video;
    reasons: empty, not-a-video, truncated, audio-only, no-frames, no-times, no-key-frame, undecodable,
    unreadable.
    """
    path = Path(path)
    with open_video(path) as (container, stream):
        pts, keyframe_pts, last_duration = _read_packets(container, stream, path)
        rotation, width, height = _first_frame(container, stream, path)
        time_base = stream.time_base
        if time_base is None:
            raise ItemError("no-times", f"{path.name}: the video stream has no time base")
        if last_duration <= 0 and len(pts) > 1:
            last_duration = int(np.median(np.diff(pts)))
        ticks = int(pts[-1] - pts[0]) + max(last_duration, 1)
        duration_s = float(ticks * time_base)
        promised_s = float(stream.duration * time_base) if stream.duration else 0.0
        return Probe(
            container=container.format.name,
            codec=stream.codec_context.name,
            width=width,
            height=height,
            rotation=rotation,
            fps=len(pts) / duration_s,
            num_frames=len(pts),
            duration_s=duration_s,
            start_s=float(pts[0] * time_base),
            has_audio=bool(container.streams.audio),
            is_variable_rate=_is_variable(pts),
            is_truncated=promised_s - duration_s > max(_MISSING_S, _MISSING_SHARE * promised_s),
            time_base=time_base,
            pts=pts,
            keyframe_pts=keyframe_pts,
        )


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its video stream; what PyAV raises inside becomes an ``ItemError``."""
    import av
    import av.error

    _check_file(path)
    try:
        container = av.open(str(path))
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        raise _explain_invalid(path) from error
    except av.error.FFmpegError as error:
        raise ItemError("unreadable", f"{path.name}: {error.strerror}") from error
    with container:
        try:
            yield container, _video_stream(container, path)
        except av.error.FFmpegError as error:
            raise ItemError("undecodable", f"{path.name}: {error.strerror}") from error


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise ItemError("empty", f"{path.name} has no bytes")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            raise InputError(f"There is no video file {path}. Check the path.") from error
        raise MachineError(f"Cannot read {path}: {error.strerror}. Check its rights and the disk.") from error


def _explain_invalid(path: Path) -> ItemError:
    with path.open("rb") as file:
        head = file.read(64)
    if any(magic in head for magic in _MAGIC):
        return ItemError("truncated", f"{path.name} begins as a video, but its index or its data is cut off")
    return ItemError(
        "not-a-video", f"{path.name} is in no video format that FFmpeg knows, whatever its name says"
    )


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        if container.streams.audio:
            raise ItemError("audio-only", f"{path.name} holds sound but no moving picture")
        raise ItemError("not-a-video", f"{path.name} holds neither picture nor sound")
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        raise ItemError("not-a-video", f"{path.name} is a still picture ({streams[0].codec_context.name})")
    return streams[0]


def _read_packets(
    container: InputContainer, stream: VideoStream, path: Path
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the sorted presentation times, those of the key frames, and the last frame's duration."""
    pts, keys, durations = [], [], {}
    untimed = 0
    for packet in container.demux(stream):
        if not packet.size or packet.is_corrupt:
            continue
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            untimed += 1
            continue
        if packet.is_discard:
            continue
        pts.append(time)
        durations[time] = packet.duration or 0
        if packet.is_keyframe:
            keys.append(time)
    if not pts:
        reason = "no-times" if untimed else "no-frames"
        raise ItemError(reason, f"{path.name}: the video stream has {untimed} packets, none with a time")
    if not keys:
        raise ItemError("no-key-frame", f"{path.name}: none of {len(pts)} frames can be decoded by itself")
    pts = np.unique(np.asarray(pts, dtype=np.int64))
    return pts, np.unique(np.asarray(keys, dtype=np.int64)), durations[int(pts[-1])]


def _first_frame(container: InputContainer, stream: VideoStream, path: Path) -> tuple[int, int, int]:
    """Decode one frame and return (rotation, width, height as shown)."""
    container.seek(int(stream.start_time or 0), stream=stream)
    for frame in container.decode(stream):
        rotation = -round(frame.rotation / 90) * 90 % 360
        width, height = frame.width, frame.height
        return (rotation, height, width) if rotation in (90, 270) else (rotation, width, height)
    raise ItemError("no-frames", f"{path.name}: no frame could be decoded")


def _is_variable(pts: np.ndarray) -> bool:
    """Whether frame distances differ by more than a tenth and more than rounding explains."""
    if len(pts) < 3:
        return False
    steps = np.diff(pts)
    return bool(steps.max() - steps.min() > max(2.0, 0.1 * float(np.median(steps))))
