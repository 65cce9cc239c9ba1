"""Ways to get the same frames of a long video as uint8 RGB of one size, in one thread.

All write into one array ``[N, size, size, 3]`` that is there and touched before, as a loader's own buffers
are. Each scales with the cheapest means that it has: in the conversion to RGB (PyAV, decord), or after it
(OpenCV's bilinear).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.loading.long_video import SHARDS, Source, wanted_indices

Reader = Callable[[Source, np.ndarray], None]
_CHUNK = 128  # frames of the source's size in memory at once


def ours(source: Source, out_NHW3: np.ndarray) -> None:
    """Our shards: the JPEGs asked for, by their byte ranges."""
    from longvila.data import open_reader
    from longvila.text.encode import thin_frames

    reader = open_reader(f"{source.dataset}/shards/{SHARDS}")
    reader.frames(0, thin_frames(int(reader.index.num_frames[0]), len(out_NHW3)), out_nHW3=out_NHW3)


def torchcodec(source: Source, out_NHW3: np.ndarray) -> None:
    """torchcodec, exact."""
    import cv2
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(source.video), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
    wanted = wanted_indices(source.num_frames, len(out_NHW3))
    for start in range(0, len(out_NHW3), _CHUNK):
        batch = decoder.get_frames_at(wanted[start : start + _CHUNK].tolist()).data.numpy()
        for number, picture in enumerate(batch, start=start):
            cv2.resize(picture, out_NHW3.shape[1:3], dst=out_NHW3[number])


def pyav(source: Source, out_NHW3: np.ndarray) -> None:
    """PyAV: forward, with a seek where the next frame hangs on a key frame that lies far ahead."""
    import av

    with av.open(str(source.video)) as container:
        stream = container.streams.video[0]
        packets = [
            (packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.pts is not None
        ]
        pts = np.sort([one for one, _ in packets])
        keys = np.sort([one for one, is_key in packets if is_key])
        container.seek(0, stream=stream)
        stream.thread_count = 1
        wanted = pts[wanted_indices(source.num_frames, len(out_NHW3))]
        frames = container.decode(stream)
        at = -1
        for number, time in enumerate(wanted):
            key = keys[np.searchsorted(keys, time, side="right") - 1]
            if np.searchsorted(pts, key) - at > 12:
                container.seek(int(key), stream=stream)
                frames = container.decode(stream)
            frame = next(one for one in frames if one.pts is not None and one.pts >= time)
            at = int(np.searchsorted(pts, time))
            out_NHW3[number] = frame.to_ndarray(
                format="rgb24", width=out_NHW3.shape[2], height=out_NHW3.shape[1], interpolation="BILINEAR"
            )


def pyav_linear(source: Source, out_NHW3: np.ndarray) -> None:
    """PyAV: every frame is decoded, those asked for are kept."""
    import av

    wanted = {
        int(index): number for number, index in enumerate(wanted_indices(source.num_frames, len(out_NHW3)))
    }
    with av.open(str(source.video)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                out_NHW3[wanted[index]] = frame.to_ndarray(
                    format="rgb24",
                    width=out_NHW3.shape[2],
                    height=out_NHW3.shape[1],
                    interpolation="BILINEAR",
                )


def decord(source: Source, out_NHW3: np.ndarray) -> None:
    """decord, which scales by itself."""
    import decord as package

    reader = package.VideoReader(
        str(source.video), num_threads=1, width=out_NHW3.shape[2], height=out_NHW3.shape[1]
    )
    wanted = wanted_indices(source.num_frames, len(out_NHW3))
    for start in range(0, len(out_NHW3), _CHUNK):
        batch = reader.get_batch(wanted[start : start + _CHUNK].tolist()).asnumpy()
        out_NHW3[start : start + len(batch)] = batch


def vila(source: Source, out_NHW3: np.ndarray) -> None:
    """OpenCV, a seek to each frame: how the published training code (NVlabs/VILA) reads a video."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(source.video))
    capture.set(cv2.CAP_PROP_N_THREADS, 1)
    for number, index in enumerate(wanted_indices(source.num_frames, len(out_NHW3))):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        found, picture = capture.read()
        assert found, f"frame {index}"
        cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), out_NHW3.shape[1:3], dst=out_NHW3[number])
    capture.release()


OURS, VILA = "ours", "OpenCV per index (VILA)"
READERS: dict[str, tuple[Reader, tuple[str, ...]]] = {  # and the modules it needs
    OURS: (ours, ("longvila.data", "pyarrow.parquet")),
    "torchcodec exact": (torchcodec, ("torchcodec.decoders", "cv2")),
    "PyAV, seeks": (pyav, ("av",)),
    "PyAV, linear": (pyav_linear, ("av",)),
    "decord": (decord, ("decord",)),
    VILA: (vila, ("cv2",)),
}
