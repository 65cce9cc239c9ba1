"""Frames by time stamp: some of them with few seeks, or all of them in one linear pass.

Never by frame index: a decoder's own index is wrong with threads, edit lists and variable rates.
A frame is shown from its time until the next frame's, so the frame *at* a time is the last one not after it.
N frames, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longvila.errors import ItemError
from longvila.media.opening import open_video
from longvila.media.probe import Probe, probe

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# A seek costs about as much as decoding this many frames.
_SEEK_COST_FRAMES = 12


def sample_times(duration_s: float, fps: float) -> np.ndarray:
    """Return the times 0, 1/fps, 2/fps, … before ``duration_s``, float64."""
    count = max(1, int(np.ceil(duration_s * fps - 1e-6)))
    return np.arange(count, dtype=np.float64) / fps


def decode_frames(
    path: str | Path,
    times_s: Sequence[float] | np.ndarray,
    *,
    size: int | tuple[int, int] | None = None,
    facts: Probe | None = None,
) -> np.ndarray:
    """Decode the frame shown at each of ``times_s`` to uint8 RGB ``[N, H, W, 3]``, in the order of the times.

    ``size`` is (height, width), or one number for a square; None keeps the picture's own. ``facts`` saves
    probing the file again. Raises ``InputError`` for a time outside, ``ItemError`` for a file that cannot be
    decoded there.
    """
    path = Path(path)
    facts = facts or probe(path)
    indices_N = facts.frames_at(np.asarray(times_s, dtype=np.float64))
    height, width = _shown_size(facts, size)
    frames_NHW3 = np.empty((len(indices_N), height, width, 3), dtype=np.uint8)
    order = np.argsort(indices_N, kind="stable")
    wanted = np.unique(indices_N)
    position = 0
    for index, picture in zip(wanted, _decode_wanted(path, facts, wanted, (height, width)), strict=True):
        while position < len(order) and indices_N[order[position]] == index:
            frames_NHW3[order[position]] = picture
            position += 1
    return frames_NHW3


def iterate_frames(
    path: str | Path,
    *,
    fps: float | None = None,
    size: int | tuple[int, int] | None = None,
    interpolation: str = "AREA",
    facts: Probe | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (time_s, uint8 RGB ``[H, W, 3]``) in one linear pass.

    With ``fps`` the times are ``sample_times`` and the frames those that ``decode_frames`` gives for them;
    without, every frame comes with its own time. Raises ``ItemError`` when a frame cannot be decoded.
    """
    path = Path(path)
    facts = facts or probe(path)
    shape = _shown_size(facts, size)
    if fps is None:
        for time, frame in _linear(path, facts, facts.pts):
            yield time, to_picture(frame, facts.rotation, shape, interpolation=interpolation)
        return
    times_s = sample_times(facts.duration_s, fps)
    indices = facts.frames_at(times_s)
    position = 0
    for index, (_, frame) in zip(
        np.unique(indices), _linear(path, facts, facts.pts[np.unique(indices)]), strict=True
    ):
        picture = to_picture(frame, facts.rotation, shape, interpolation=interpolation)
        while position < len(indices) and indices[position] == index:
            yield float(times_s[position]), picture
            position += 1


def decode_all(path: Path, facts: Probe) -> Iterator[tuple[float, VideoFrame]]:
    """Yield every decoded frame with its time, unconverted, for callers that want several sizes of it."""
    return _linear(path, facts, facts.pts)


def to_picture(
    frame: VideoFrame,
    rotation: int,
    shape: tuple[int, int],
    *,
    interpolation: str = "AREA",
    layout: str = "rgb24",
) -> np.ndarray:
    """Convert a decoded frame to uint8 ``[H, W, 3]`` of ``shape`` (height, width), turned upright."""
    height, width = shape if rotation in (0, 180) else shape[::-1]
    picture = frame.to_ndarray(format=layout, width=width, height=height, interpolation=interpolation)
    return np.rot90(picture, k=-rotation // 90) if rotation else picture


def _shown_size(facts: Probe, size: int | tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        return facts.height, facts.width
    return (size, size) if isinstance(size, int) else size


def _linear(path: Path, facts: Probe, wanted_pts: np.ndarray) -> Iterator[tuple[float, VideoFrame]]:
    """Decode from the start and yield the frame shown at each of ``wanted_pts`` (sorted, distinct)."""
    position = 0
    held: VideoFrame | None = None
    with open_video(path) as (container, stream):
        _use_threads(stream)
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            while held is not None and position < len(wanted_pts) and frame.pts > wanted_pts[position]:
                yield _time(held, facts), held
                position += 1
            held = frame
            if position == len(wanted_pts):
                return
        # A last packet may be a second field, which has a time but no picture of its own.
        while held is not None and position < len(wanted_pts) and _is_near(held, wanted_pts[position], facts):
            yield _time(held, facts), held
            position += 1
    if position < len(wanted_pts):
        raise _cut_short(path, facts, held)


def _is_near(frame: VideoFrame, pts: np.int64, facts: Probe) -> bool:
    step_s = 1.0 / facts.fps
    return float((int(pts) - int(frame.pts or 0)) * facts.time_base) < 1.5 * step_s


def _time(frame: VideoFrame, facts: Probe) -> float:
    return float((int(frame.pts or 0) - int(facts.pts[0])) * facts.time_base)


def _cut_short(path: Path, facts: Probe, last: VideoFrame | None) -> ItemError:
    reached = f"{_time(last, facts):.2f} s" if last is not None else "the first frame"
    return ItemError(
        "truncated", f"{path.name} cannot be decoded beyond {reached} of {facts.duration_s:.2f} s"
    )


def _decode_wanted(
    path: Path, facts: Probe, indices: np.ndarray, shape: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Decode the frames ``indices`` (sorted, distinct), seeking over what is not needed."""
    if not len(indices):
        return
    wanted_pts = facts.pts[indices]
    # The key frame that each wanted frame hangs on, as an index into all frames.
    keys = np.maximum(np.searchsorted(facts.keyframe_pts, wanted_pts, side="right") - 1, 0)
    key_indices = np.searchsorted(facts.pts, facts.keyframe_pts[keys])
    with open_video(path) as (container, stream):
        _use_threads(stream)
        frames = _forward(container, stream, 0)
        at = 0  # the next frame that the decoder would give
        for i, index in enumerate(indices):
            if key_indices[i] - at > _SEEK_COST_FRAMES:
                frames = _forward(container, stream, int(facts.keyframe_pts[keys[i]]))
            frame = _first_at(frames, int(wanted_pts[i]))
            if frame is None or frame.pts != wanted_pts[i]:
                # The container's index led astray: this frame costs a pass from the start.
                frame = next(_linear(path, facts, wanted_pts[i : i + 1]))[1]
            yield to_picture(frame, facts.rotation, shape)
            at = int(index) + 1


def _forward(container: InputContainer, stream: VideoStream, pts: int) -> Iterator[VideoFrame]:
    """Start decoding at the last key frame not after ``pts``."""
    container.seek(pts, stream=stream, backward=True)
    return container.decode(stream)


def _first_at(frames: Iterator[VideoFrame], pts: int) -> VideoFrame | None:
    """Return the first frame that is not before ``pts``; None at the end."""
    return next((frame for frame in frames if frame.pts is not None and frame.pts >= pts), None)


def _use_threads(stream: VideoStream) -> None:
    stream.thread_type = "AUTO"
