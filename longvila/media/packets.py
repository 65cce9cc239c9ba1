"""The time line of a video stream, from all its packets and none of their pictures.

A packet's time is when its frame is shown (PTS). Containers lie about it in many ways: AVI and raw streams
have none, transport streams start again at zero, cameras write some twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from longvila.errors import ItemError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

# Where clocks may start again, so that a jump of the time is a seam and not a pause.
_SEAMED = ("mpegts", "mpeg")
_SEAM_S = 10.0
_GUESSED_FPS = 25
_EDGE_PACKETS = 2  # a stream that was cut out of a broadcast begins and ends with parts of packets
_NEVER_ZERO = (
    "h264",
    "hevc",
    "vp8",
    "vp9",
    "av1",
    "mpeg4",
    "mjpeg",
    "theora",
)  # and where packets are not stuffed with zeros
_UNSTUFFED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "avi")
_ZERO_HEAD = bytes(64)
_LOST_BYTES = 4096  # between two packets; more than any header of a cluster or a tag
_CONTIGUOUS = ("matroska,webm", "flv", "avi", "asf", "ogg", "mpeg")
_GAPLESS = ("matroska,webm", "flv")
_ADDITION = "matroska_block_additional"
_MAX_GAPS = 1000
_HOLE = bytes(4096)  # a page of zeros inside a packet


class Gap(NamedTuple):
    """Bytes of the file between two packets that belong to neither."""

    start: int
    stop: int
    time_s: float  # of the packet behind, in the file's clock


@dataclass(frozen=True)
class TimeLine:
    """The frames of a stream. Times are in the stream's time base."""

    pts: np.ndarray  # int64, sorted, distinct, one per frame
    keyframe_pts: np.ndarray  # int64, sorted
    sizes: np.ndarray  # int64, bytes of each frame's packet
    last_duration: int
    is_exact: bool  # False where times were missing, repeated or started again, and had to be guessed
    starts_clean: bool  # the first packet is a key frame
    ends_s: float  # when the last packet of any stream ends, in the file's clock
    sound_s: float | None  # when the first packet of the first audio stream begins, in the file's clock
    num_packets: int  # of the video, those that are not shown too
    first_damage: int | None  # the time of the first packet that is damaged
    gaps: tuple[Gap, ...]  # where packets should follow one another and do not
    is_gapless: bool  # whether any gap is damage, and not only one of zeros


def read_time_line(container: InputContainer, stream: VideoStream, name: str) -> TimeLine:
    """Read every packet of a file.

    Raises ``ItemError``; reasons: encrypted, no-frames, no-key-frame.
    """
    reading = _Reading(container, stream)
    for packet in container.demux():
        reading.add(packet)
    if reading.is_encrypted:
        raise ItemError("encrypted", f"{name} is encrypted (DRM); it cannot be decoded without its key")
    if not reading.pts:
        raise ItemError("no-frames", f"{name}: its video stream has no frame in it")
    if not (any(reading.keys) or reading.has_hidden_key):
        count = len(reading.pts)
        raise ItemError("no-key-frame", f"{name}: none of its {count} frames can be decoded by itself")
    return reading.time_line()


class _Reading:
    """Gathers what packets say."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._stream = stream
        self._format = container.format.name
        self._tick_s = float(stream.time_base or 0)
        self.pts: list[int | None] = []
        self.keys: list[bool] = []
        self.sizes: list[int] = []
        self.durations: list[int] = []
        self.is_encrypted = stream.codec_context.codec_tag in ("encv", "encs", "drmi", "drms")
        self._sound_index = next((s.index for s in container.streams.audio), None)
        self.sound_s: float | None = None
        self.ends_s = 0.0
        self.num_packets = 0
        self._is_coded = (
            stream.codec_context.codec.canonical_name in _NEVER_ZERO and self._format in _UNSTUFFED
        )
        self._last_pos = -1
        self._holes: list[int] = []
        self._corrupt: list[tuple[int, int]] = []  # (packet number, time)
        self._has_own_times = True
        self._has_seam = False
        self.has_hidden_key = False
        self._last_dts: int | None = None
        self._last_byte = 0
        self._now_s = 0.0
        self._gaps: list[Gap] = []
        self._has_additions = False  # as the transparency of VP9, which lies between the packets

    def add(self, packet: Packet) -> None:
        """Take one packet of any stream."""
        if not packet.size:
            return
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and packet.time_base:
            self._now_s = float(time * packet.time_base)
            self.ends_s = max(self.ends_s, float((time + (packet.duration or 0)) * packet.time_base))
            if self.sound_s is None and packet.stream_index == self._sound_index:
                self.sound_s = self._now_s
        if packet.stream_index == self._stream.index:
            self._add_video(packet, time)
        self._watch_position(packet)

    def _add_video(self, packet: Packet, time: int | None) -> None:
        self.num_packets += 1
        if self.num_packets == 1 and packet.has_sidedata("encryption_info"):
            self.is_encrypted = True
        if self._is_coded and _is_zero(packet):
            self._holes.append(time or 0)
        if packet.is_corrupt:
            self._corrupt.append((self.num_packets, time or 0))
            return
        if packet.is_discard:
            self.has_hidden_key |= packet.is_keyframe and not self.pts
            return
        self._has_own_times &= packet.pts is not None
        self._watch_clock(packet)
        self.pts.append(time)
        self.keys.append(packet.is_keyframe)
        self.sizes.append(packet.size)
        self.durations.append(packet.duration or 0)

    def _watch_clock(self, packet: Packet) -> None:
        if packet.dts is None:
            return
        step = 0 if self._last_dts is None else packet.dts - self._last_dts
        far = abs(step) * self._tick_s > _SEAM_S
        self._has_seam |= step < 0 or (far and self._format in _SEAMED)
        self._last_dts = packet.dts

    def _watch_position(self, packet: Packet) -> None:
        """Note where bytes lie between two packets, in containers that are written from start to end."""
        if packet.pos is None or packet.pos < 0 or self._format not in _CONTIGUOUS:
            return
        self._has_additions = self._has_additions or packet.has_sidedata(_ADDITION)
        if self._last_byte and packet.pos - self._last_byte > _LOST_BYTES and len(self._gaps) < _MAX_GAPS:
            self._gaps.append(Gap(self._last_byte, packet.pos, self._now_s))
        start = self._last_byte if packet.pos == self._last_pos else packet.pos
        # Laced packets share their position.
        self._last_byte, self._last_pos = max(self._last_byte, start + packet.size), packet.pos

    def time_line(self) -> TimeLine:
        """Put the frames in the order in which they are shown."""
        first_key = self.keys.index(True) if any(self.keys) else 0
        known = [time for time in self.pts if time is not None]
        exact = self._has_own_times and not self._has_seam and len(set(known)) == len(self.pts)
        pts = np.array(known if len(known) == len(self.pts) else self._guessed(), dtype=np.int64)
        if not exact and (self._has_seam or len(np.unique(pts)) < 0.9 * len(pts)):
            pts = np.array(self._guessed(), dtype=np.int64)
        keys, sizes, durations = (np.array(v) for v in (self.keys, self.sizes, self.durations))
        start = pts.min() if self.has_hidden_key else pts[first_key]
        shown = pts >= start  # frames before the first key frame have nothing to be decoded from
        pts, first = np.unique(pts[shown], return_index=True)
        key_pts = pts[keys[shown][first]]
        if self.has_hidden_key:
            key_pts = np.union1d(key_pts, pts[:1])
        return TimeLine(
            pts=pts,
            keyframe_pts=key_pts,
            sizes=sizes[shown][first],
            last_duration=int(durations[shown][first][-1]),
            is_exact=exact,
            starts_clean=first_key == 0 or self.has_hidden_key,
            ends_s=self.ends_s,
            sound_s=self.sound_s,
            num_packets=self.num_packets,
            first_damage=self._first_damage(),
            gaps=tuple(self._gaps),
            is_gapless=self._format in _GAPLESS and not self._has_additions,
        )

    def _guessed(self) -> list[int]:
        """Times for frames that have none: one after another at the stream's rate."""
        rate = self._stream.guessed_rate or self._stream.average_rate or _GUESSED_FPS
        step = 1.0 / (float(rate) * self._tick_s) if self._tick_s else 1.0
        return [round(i * max(step, 1.0)) for i in range(len(self.pts))]

    def _first_damage(self) -> int | None:
        inner = range(_EDGE_PACKETS + 1, self.num_packets - _EDGE_PACKETS + 1)
        found = self._holes + [time for number, time in self._corrupt if number in inner]
        return min(found, default=None)


def _is_zero(packet: Packet) -> bool:
    """Whether a packet has zeros where a coded picture has none, as where a download left a hole."""
    data = bytes(packet)
    return data.startswith(_ZERO_HEAD) or _HOLE in data
