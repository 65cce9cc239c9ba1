"""A sample's frames as a small video: frame ``i`` of the file is frame ``i`` of the sample."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from longvila.media.jpeg import FrameBlob, decode_frame

VERSION = 1
KEY_FRAME_EVERY = 16  # readers that seek to each frame decode 8 for one on average


def frame_rate(times_s: Sequence[float]) -> Fraction:
    """Return the frames per second of a sample; 1 for a single frame.

    Of unevenly spaced frames it is that of the middle distance: the file keeps their order, not their times.
    """
    if len(times_s) < 2:
        return Fraction(1)
    distance = float(np.median(np.diff(np.asarray(times_s, dtype=np.float64))))
    if not distance > 0:
        return Fraction(1)
    return Fraction(1 / distance).limit_denominator(1000)


def encode_video(blob: FrameBlob, times_s: Sequence[float], *, crf: int = 16) -> bytes:
    """Encode a sample's frames as an H.264 MP4; the same frames give the same bytes.

    Frames are decoded in the order in which they are shown (no B-frames), and a key frame comes every
    ``KEY_FRAME_EVERY``. One frame is held at a time.
    """
    import av

    rate = frame_rate(times_s)
    view = memoryview(blob.data)
    first = decode_frame(view[: int(blob.offsets[1])])
    height, width = first.shape[:2]
    even = not (height % 2 or width % 2)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p" if even else "yuv444p"
        stream.thread_count = 1
        stream.options = {
            "crf": str(crf), "preset": "veryfast", "g": str(KEY_FRAME_EVERY), "bf": "0", "threads": "1",
        }  # fmt: skip
        for i in range(blob.num_frames):
            picture = decode_frame(view[int(blob.offsets[i]) : int(blob.offsets[i + 1])])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()
