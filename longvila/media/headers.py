"""Headers held against what a file really holds: sizes, clocks and lengths that cannot be true."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from longvila.errors import ItemError
from longvila.media.boxes import Claims
from longvila.media.packets import TimeLine

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_LONGEST_S = 30 * 86_400.0  # what claims to last longer has a broken clock
_FASTEST_FPS = 1000.0
_LIKE = 4  # times wider or higher than what the header says


def check_header(stream: VideoStream, claims: Claims | None, name: str, max_pixels: int) -> Fraction:
    """Refuse sizes and clocks that cannot be, before anything is decoded."""
    context = stream.codec_context
    coded = (context.width, context.height)
    for width, height in (coded, *(claims.sizes if claims else ())):
        if width <= 0 or height <= 0:
            raise ItemError("absurd-header", f"{name}: its header says a picture of {width}×{height} pixels")
        if width * height > max_pixels:
            raise ItemError(
                "too-many-pixels",
                f"{name}: its header says {width}×{height} pixels, more than {max_pixels:,}",
            )
    sizes = claims.sizes if claims else ()
    if sizes and not any(_is_like(size, coded) for size in sizes):
        raise ItemError(
            "absurd-header",
            f"{name}: its header says {sizes[0][0]}×{sizes[0][1]} pixels, "
            f"its pictures have {coded[0]}×{coded[1]}",
        )
    time_base = stream.time_base
    if time_base is None or time_base <= 0:
        raise ItemError("absurd-header", f"{name}: its clock ticks every {time_base} s")
    return time_base


def _is_like(size: tuple[int, int], coded: tuple[int, int]) -> bool:
    return all(1 / _LIKE <= said / real <= _LIKE for said, real in zip(size, coded, strict=True))


def check_times(line: TimeLine, duration_s: float, name: str) -> None:
    """Refuse a clock that makes the frames last for months or fly by."""
    if duration_s > _LONGEST_S:
        raise ItemError(
            "absurd-header",
            f"{name}: its frames' times span {duration_s / 86_400:,.0f} days; its clock is broken",
        )
    fps = len(line.pts) / duration_s
    if fps > _FASTEST_FPS:
        raise ItemError("absurd-header", f"{name}: its clock makes it {fps:,.0f} frames per second")


def check_promise(
    container: InputContainer,
    stream: VideoStream,
    claims: Claims | None,
    line: TimeLine,
    duration_s: float,
    name: str,
) -> None:
    """Refuse a header that promises far more than a file in which nothing is missing."""
    promised_s = max(length_promised(container, stream) or 0.0, claims.duration_s if claims else 0.0)
    whole = bool(stream.frames) and line.num_packets >= stream.frames
    if promised_s > _LONGEST_S or (whole and promised_s > 2 * line.ends_s + 60):
        raise ItemError(
            "absurd-header",
            f"{name}: its header says {promised_s / 3600:,.1f} h, its frames last {duration_s:.1f} s",
        )
    if len(line.pts) == 1 and line.num_packets > 2:
        raise ItemError(
            "absurd-header", f"{name}: its header lets one of its {line.num_packets} frames be seen"
        )


def length_promised(container: InputContainer, stream: VideoStream) -> float | None:
    """How long the header says the video lasts, in seconds."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None
