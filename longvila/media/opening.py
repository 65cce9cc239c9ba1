"""Opening a file from outside as a video: only as a file, only in known formats, and with words for failures.

FFmpeg reads play lists, concat scripts and numbered pictures as if they were videos, and would follow the
addresses in them to other files and hosts. So formats are listed, and a file's name is never an address.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from longvila.errors import InputError, ItemError, MachineError
from longvila.media.sniff import is_video_head, recognise

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

PROTOCOLS = "file"
_VIDEO_FORMATS = (
    "mov,matroska,mpegts,mpeg,mpegvideo,avi,flv,live_flv,asf,asf_o,ogg,gif,apng,h264,hevc,vvc,ivf,obu,"
    "yuv4mpegpipe,rm,wtv,mxf,dv,nut,nuv,swf,bink,smk,roq,ivr,gxf,fli,flic,webp_anim"
)
_SOUND_FORMATS = "mp3,wav,flac,aac,ac3,eac3,aiff,amr,w64,caf,au,dts,truehd,ape,wv,tta,tak"
FORMATS = f"{_VIDEO_FORMATS},{_SOUND_FORMATS}"


def file_url(path: Path) -> str:
    """Return a path as FFmpeg reads nothing but a file into it, whatever characters it has."""
    return f"file:{path}"


def shown_name(name: str) -> str:
    """Return a name for messages: bytes that are not UTF-8 and control characters are written as escapes."""
    readable = name.encode("utf-8", errors="backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in readable)


def check_name(name: str) -> None:
    """Raise ``ItemError`` "bad-name" when a name cannot be written as UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ItemError("bad-name", f"{shown_name(name)}: the name is not UTF-8. Rename the file") from error


@contextmanager
def open_video(
    path: Path, *, name: str | None = None, threads: int | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its video stream; what PyAV raises inside becomes an ``ItemError``.

    ``name`` is what messages call the file; ``threads`` those of the decoder, None for FFmpeg's own choice.
    Raises ``InputError`` when there is no such file, and ``ItemError``; reasons: empty, bad-name,
    not-a-video, truncated, audio-only, no-frames, undecodable, unreadable.
    """
    import av
    import av.error

    name = shown_name(name or path.name)
    check_name(path.name)
    _check_file(path, name)
    container = _open(path, name)
    with container:
        try:
            stream = _pick_stream(container, name)
            if threads is not None:
                stream.codec_context.thread_count = threads
            yield container, stream
        except av.error.MemoryError as error:
            raise ItemError(
                "too-much-memory", f"{name}: decoding it takes more memory than is allowed"
            ) from error
        except av.error.FFmpegError as error:
            raise ItemError("undecodable", f"{name} cannot be decoded ({error.strerror})") from error
        except (ValueError, LookupError, OverflowError, MemoryError) as error:
            raise ItemError("undecodable", f"{name}: its data make no sense ({error})") from error


def limit_pixels(stream: VideoStream, max_pixels: int) -> None:
    """Let the decoder refuse pictures of more pixels, also where the size changes on the way."""
    stream.codec_context.options = {**stream.codec_context.options, "max_pixels": str(max_pixels)}


def decode_past_damage(
    container: InputContainer, stream: VideoStream, *, max_errors: int
) -> Iterator[VideoFrame]:
    """Decode on behind packets that the decoder refuses, up to ``max_errors`` of them."""
    import av.error

    errors = 0
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            errors += 1
            if errors > max_errors:
                raise


def _open(path: Path, name: str) -> InputContainer:
    import av
    import av.error

    options = {"format_whitelist": FORMATS, "protocol_whitelist": PROTOCOLS}
    try:
        return av.open(file_url(path), options=options, metadata_errors="replace")
    except (av.error.InvalidDataError, av.error.EOFError, av.error.ArgumentError) as error:
        raise _explain_invalid(path, name) from error
    except av.error.MemoryError as error:
        raise ItemError("too-much-memory", f"{name}: opening it takes more memory than is allowed") from error
    except av.error.FFmpegError as error:
        raise ItemError("unreadable", f"{name} cannot be opened ({error.strerror})") from error
    except (ValueError, OverflowError, MemoryError) as error:
        raise ItemError("unreadable", f"{name}: its header makes no sense ({error})") from error


def _check_file(path: Path, name: str) -> None:
    try:
        if not path.is_file():  # a pipe would wait for ever
            raise InputError(f"There is no video file {path}. Check the path.")
        with path.open("rb") as file:
            if not file.read(1):
                raise ItemError("empty", f"{name} has no bytes")
    except OSError as error:
        raise MachineError(f"Cannot read {path}: {error.strerror}. Check its rights and the disk.") from error


def _explain_invalid(path: Path, name: str) -> ItemError:
    with path.open("rb") as file:
        head = file.read(512)
    if is_video_head(head):
        return ItemError("truncated", f"{name} begins as a video, but its index or its data is cut off")
    found = recognise(head)
    if found:
        return ItemError("not-a-video", f"{name} is {found}, whatever its name says")
    return ItemError("not-a-video", f"{name} is in no video format that is read here, whatever its name says")


def _pick_stream(container: InputContainer, name: str) -> VideoStream:
    """Return the stream that is meant to be watched: no cover, the default one, the largest, the first."""
    from av.stream import Disposition

    no_video = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    streams = [s for s in container.streams.video if not s.disposition & no_video]
    if not streams:
        if container.streams.audio:
            raise ItemError("audio-only", f"{name} holds sound but no moving picture")
        if container.streams.video:
            raise ItemError("not-a-video", f"{name} holds a still picture and nothing that moves")
        if any(stream.type != "unknown" for stream in container.streams):
            raise ItemError("not-a-video", f"{name} holds neither picture nor sound")
        raise ItemError("no-frames", f"{name} is a container without any stream in it")
    readable = [s for s in streams if s.codec_context is not None]
    if not readable:
        raise ItemError("undecodable", f"{name}: there is no decoder for its video stream")
    return max(
        readable,
        key=lambda s: (
            bool(s.disposition & Disposition.default),
            s.codec_context.width * s.codec_context.height,
            -s.index,
        ),
    )
