"""What a video file really holds, read from its packets and its first frame rather than from its header.

Headers lie: of the length after a cut, of the frame rate when it varies, of everything when the file is
truncated. Reading all packets without decoding them costs about a thousandth of decoding.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from longvila.errors import InputError, ItemError
from longvila.media.boxes import read_claims
from longvila.media.headers import check_header, check_promise, check_times, length_promised
from longvila.media.opening import decode_past_damage, limit_pixels, open_video, shown_name
from longvila.media.packets import TimeLine, read_time_line
from longvila.media.sniff import is_hole, lost_sync, missing_bytes

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# A header that promises this much more than the packets hold belongs to a file that was cut short.
_MISSING_SHARE = 0.005
_MISSING_S = 0.3
_ROUNDING_S = 1e-6
_WIDEST_PIXEL = 8  # an aspect beyond 8:1 is a mistake of the header and is left out
_SQUARE = 0.02  # less is what rounding a size to even numbers makes
_MAX_LEADING_ERRORS = 250  # packets of a group that began before the file did
_FULL_RANGE = 2
_PROGRESSIVE = 1  # of FFmpeg's field orders: 0 is unknown, the others are interlaced
_COARSE_TICKS = 10  # per frame
_HDR_TRANSFERS = (16, 18)  # PQ and HLG, by ITU-T H.273
INDEXED_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "flv")  # fit for seeking
DEFAULT_MAX_PIXELS = 8192 * 8192


@dataclass(frozen=True)
class Probe:
    """The facts of one video file. Times are seconds after its first frame."""

    container: str
    codec: str
    width: int  # as shown, after rotation and with square pixels
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
    sizes: np.ndarray = field(repr=False, compare=False)  # int64, bytes of each frame's packet
    stream_index: int = 0  # in the file
    is_mirrored: bool = False  # the display matrix also flips the picture
    pixel_aspect: Fraction = Fraction(1)  # width ÷ height of a stored pixel
    is_interlaced: bool = False
    is_hdr: bool = False  # its brightness is coded as PQ or HLG
    transfer: int = 2  # ITU-T H.273
    full_range: bool = False
    is_exact: bool = True  # every frame has a time of its own; else they are guessed
    file_start_s: float = 0.0  # where the file as a whole begins, in its own clock
    sound_delay_s: float = 0.0  # how much later than the picture the sound begins
    starts_clean: bool = True  # the first frame is a key frame
    damage_s: float | None = None  # where the first damaged packet is

    @property
    def times_s(self) -> np.ndarray:
        """When each frame is shown, float64 ``[num_frames]``, from 0."""
        return (self.pts - self.pts[0]) * float(self.time_base)

    @property
    def longest_group(self) -> int:
        """The most frames from one key frame to the next."""
        keys = np.searchsorted(self.pts, self.keyframe_pts)
        return int(np.diff(np.append(keys, self.num_frames)).max())

    def frames_at(self, times_s: np.ndarray) -> np.ndarray:
        """Return the index of the frame shown at each time, int64; ``InputError`` outside the video."""
        times_s = np.asarray(times_s, dtype=np.float64)
        if times_s.size and (times_s.min() < 0 or times_s.max() >= self.duration_s):
            raise InputError(
                f"time {times_s.min():.3f} s or {times_s.max():.3f} s is outside the video, "
                f"which lasts [0, {self.duration_s:.3f}) s. Ask for times inside."
            )
        return np.searchsorted(self.times_s, times_s + _ROUNDING_S, side="right") - 1


def probe(path: str | Path, *, name: str | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Probe:
    """Read the facts of a video file. ``name`` is what messages call it, by default the file's name.

    Raises ``InputError`` when there is no such file, and ``ItemError`` when it is not a usable video;
    reasons: those of ``opening.open_video`` and ``packets.read_time_line``, and absurd-header,
    too-many-pixels.
    """
    path = Path(path)
    name = shown_name(name or path.name)
    with open_video(path, name=name) as (container, stream):
        claims = read_claims(path)
        time_base = check_header(stream, claims, name, max_pixels)
        line = read_time_line(container, stream, name)
        look = _first_look(path, name, max_pixels)
        step = int(np.median(np.diff(line.pts))) if len(line.pts) > 1 else 1
        last = line.last_duration if line.last_duration > 0 else step
        duration_s = float((int(line.pts[-1] - line.pts[0]) + max(last, 1)) * time_base)
        check_times(line, duration_s, name)
        check_promise(container, stream, claims, line, duration_s, name)
        return Probe(
            container=container.format.name,
            codec=stream.codec_context.codec.canonical_name,
            width=look.width,
            height=look.height,
            rotation=look.rotation,
            fps=len(line.pts) / duration_s,
            num_frames=len(line.pts),
            duration_s=duration_s,
            start_s=float(line.pts[0] * time_base),
            has_audio=bool(container.streams.audio),
            is_variable_rate=_is_variable(line.pts),
            is_truncated=_is_truncated(container, stream, line, duration_s, path),
            time_base=time_base,
            pts=line.pts,
            keyframe_pts=line.keyframe_pts,
            sizes=line.sizes,
            stream_index=stream.index,
            is_mirrored=look.is_mirrored,
            pixel_aspect=look.pixel_aspect,
            is_interlaced=look.is_interlaced,
            is_hdr=look.transfer in _HDR_TRANSFERS,
            transfer=look.transfer,
            full_range=look.full_range,
            is_exact=line.is_exact,
            starts_clean=line.starts_clean,
            file_start_s=(container.start_time or 0) / 1e6,
            sound_delay_s=0.0 if line.sound_s is None else line.sound_s - float(line.pts[0] * time_base),
            damage_s=_damage(path, line, duration_s, time_base),
        )


class _Look(NamedTuple):
    """What only a decoded frame tells."""

    width: int
    height: int
    rotation: int
    is_mirrored: bool
    pixel_aspect: Fraction
    is_interlaced: bool
    transfer: int
    full_range: bool


def _is_truncated(
    container: InputContainer, stream: VideoStream, line: TimeLine, duration_s: float, path: Path
) -> bool:
    if missing_bytes(path):
        return True
    promised_s = length_promised(container, stream) or 0.0
    # Where only the whole container has a length, that of its longest stream counts.
    there_s = duration_s if stream.duration else line.ends_s - (container.start_time or 0) / 1e6
    return line.is_exact and promised_s - there_s > max(_MISSING_S, _MISSING_SHARE * promised_s)


def _damage(path: Path, line: TimeLine, duration_s: float, time_base: Fraction) -> float | None:
    """Where the first damaged or missing part is, in seconds; None when none was found."""
    if line.first_damage is not None:
        return float((line.first_damage - int(line.pts[0])) * time_base)
    for gap in line.gaps:
        if line.is_gapless or is_hole(path, gap.start, gap.stop):
            return gap.time_s - float(int(line.pts[0]) * time_base)
    lost = lost_sync(path)
    return None if lost is None else duration_s * lost / path.stat().st_size


def _first_look(path: Path, name: str, max_pixels: int) -> _Look:
    """Decode one frame. The file is opened anew, because raw streams cannot be sought back to their start."""
    with open_video(path, name=name, threads=1) as (container, stream):
        limit_pixels(stream, max_pixels)
        for frame in decode_past_damage(container, stream, max_errors=_MAX_LEADING_ERRORS):
            return _look(stream, frame)
    raise ItemError("no-frames", f"{name}: no frame could be decoded")


def _look(stream: VideoStream, frame: VideoFrame) -> _Look:
    rotation, is_mirrored = _turn(frame)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not 1 / _WIDEST_PIXEL <= aspect <= _WIDEST_PIXEL or abs(aspect - 1) < _SQUARE:
        aspect = Fraction(1)
    width, height = max(1, round(frame.width * aspect)), frame.height
    turned = rotation in (90, 270)
    return _Look(
        width=height if turned else width,
        height=width if turned else height,
        rotation=rotation,
        is_mirrored=is_mirrored,
        pixel_aspect=aspect,
        is_interlaced=bool(frame.interlaced_frame) or stream.codec_context.field_order > _PROGRESSIVE,
        transfer=int(frame.color_trc),
        full_range=int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj"),
    )


def _turn(frame: VideoFrame) -> tuple[int, bool]:
    """Return (degrees clockwise, whether it is mirrored too) of the display matrix."""
    rotation = -round(frame.rotation / 90) * 90 % 360
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return rotation, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    return rotation, a * d - b * c < 0


def _is_variable(pts: np.ndarray) -> bool:
    """Whether frame distances differ by more than a tenth and more than rounding to ticks explains."""
    if len(pts) < 3:
        return False
    steps = np.diff(pts)
    usual = float(np.median(steps))
    rounding = 0.0 if usual <= 1 else 1.0 if usual < _COARSE_TICKS else 2.0
    return bool(steps.max() - steps.min() > max(rounding, 0.1 * usual))
