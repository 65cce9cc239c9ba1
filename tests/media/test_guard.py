from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from longvila.errors import InputError, ItemError
from longvila.media.guard import Guard
from longvila.media.inspection import Limits, inspect
from tests.media.making import DEMO, ffmpeg, grey_ramp, write_video

MEMORY = 4 * 2**30
VIDEO = DEMO / "10-meadow-again.mp4"


def reason(guard: Guard, path: Path) -> str:
    with pytest.raises(ItemError) as caught:
        guard.inspect(path, name="my film", limits=Limits())
    assert "my film" in caught.value.detail
    return caught.value.reason


def test_the_answer_is_the_same_as_without_a_process(tmp_path):
    odd = tmp_path / os.fsdecode(b"new\nline \xff.mp4").replace("\udcff", "é")
    odd.symlink_to(VIDEO)
    with Guard(timeout_s=60, memory_bytes=MEMORY) as guard:
        found = guard.inspect(odd, name="a", limits=Limits())
    here = inspect(VIDEO, name="a", limits=Limits())
    assert found == here
    np.testing.assert_array_equal(found.facts.pts, here.facts.pts)
    np.testing.assert_array_equal(found.facts.keyframe_pts, here.facts.keyframe_pts)
    assert found.facts.time_base == here.facts.time_base
    assert isinstance(found.facts.pixel_aspect, Fraction)


def test_rejections_and_mistakes_come_through(tmp_path):
    (tmp_path / "a.mp4").write_text("no video\n")
    with Guard(timeout_s=60, memory_bytes=MEMORY) as guard:
        assert reason(guard, tmp_path / "a.mp4") == "not-a-video"
        with pytest.raises(InputError, match="no video file"):
            guard.inspect(tmp_path / "none.mp4", name="a", limits=Limits())


def test_a_decoder_that_crashes_takes_one_video_along():
    with Guard(timeout_s=60, memory_bytes=MEMORY) as guard:
        guard.inspect(VIDEO, name="a", limits=Limits())
        process = guard._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)  # so that the signal comes while it works on the next file
        threading.Timer(0.3, os.kill, (process.pid, signal.SIGSEGV)).start()
        threading.Timer(0.4, os.kill, (process.pid, signal.SIGCONT)).start()
        assert reason(guard, VIDEO) == "decoder-crashes"
        assert guard.inspect(VIDEO, name="a", limits=Limits()).facts.num_frames == 800


def test_a_decoder_that_hangs_is_ended():
    with Guard(timeout_s=0.5, memory_bytes=MEMORY) as guard:
        guard._running()
        process = guard._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        assert reason(guard, VIDEO) == "decoder-hangs"
        assert process.poll() is not None


def test_the_process_does_not_outlive_its_parent(tmp_path):
    program = (
        "import os, signal, time\n"
        "from longvila.media.guard import Guard\n"
        "guard = Guard(timeout_s=60, memory_bytes=2**32)\n"
        "print(guard._running().pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False).stdout
    for _ in range(100):
        if not Path(f"/proc/{int(said)}").exists():
            return
        time.sleep(0.1)
    pytest.fail("the process is still there")


def test_memory_is_bounded(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "color=s=16000x12000:r=1:d=1", "-c:v", "mjpeg", tmp_path / "large.avi")
    with Guard(timeout_s=60, memory_bytes=400 * 2**20) as guard:
        with pytest.raises(ItemError) as caught:
            guard.inspect(tmp_path / "large.avi", name="a", limits=Limits(max_pixels=10**9))
        assert caught.value.reason == "too-much-memory"
        assert guard.inspect(VIDEO, name="a", limits=Limits()).facts.num_frames == 800


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Flip bytes, cut, or repeat a piece."""
    out, kind = bytearray(data), rng.choice(["flip", "flip", "head", "cut", "zero", "twice", "number"])
    at = rng.randrange(len(out))
    if kind == "flip":
        for _ in range(rng.choice([1, 10, 300])):
            out[rng.randrange(len(out))] = rng.randrange(256)
    elif kind == "head":
        for _ in range(rng.choice([1, 5, 20])):
            out[rng.randrange(min(len(out), 1000))] = rng.randrange(256)
    elif kind == "number":
        at = rng.randrange(min(len(out), 3000) - 4)
        out[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
    elif kind == "cut":
        del out[at:]
    elif kind == "zero":
        out[at : at + 3000] = bytes(len(out[at : at + 3000]))
    else:
        out[at:at] = out[at : at + 2000]
    return bytes(out) or b"\0"


FORMATS = {
    "a.mp4": "libx264", "a.mkv": "libx264", "a.webm": "libvpx", "a.ts": "mpeg2video", "a.mpg": "mpeg1video",
    "a.avi": "mpeg4", "a.flv": "flv", "a.ogv": "libtheora", "a.wmv": "wmv2", "a.gif": "gif",
}  # fmt: skip


def test_damaged_files_end_as_videos_or_rejections_and_always_the_same(tmp_path):
    """A hundred files of ten formats with bytes flipped, cut out, zeroed or repeated."""
    rng, verdicts = random.Random(4), []
    with Guard(timeout_s=60, memory_bytes=MEMORY) as guard:
        for name, codec in FORMATS.items():
            source = tmp_path / name
            ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:d=2", "-c:v", codec, "-g", "12", source)
            for _ in range(10):
                path = tmp_path / f"damaged-{name}"
                path.write_bytes(damaged(source.read_bytes(), rng))
                verdict = [_verdict(guard, path) for _ in range(2)]
                assert verdict[0] == verdict[1]
                verdicts.append(verdict[0])
    assert len(verdicts) == 100
    assert not {"decoder-crashes", "decoder-hangs"} & set(verdicts)
    assert not [verdict for verdict in verdicts if "without a name" in verdict]
    assert 10 < verdicts.count("video") < 80


def _verdict(guard: Guard, path: Path) -> str:
    try:
        guard.inspect(path, name=path.name, limits=Limits())
    except ItemError as error:
        return error.reason if path.name in error.detail else f"{error.reason} of a file without a name"
    return "video"


def test_threads_share_a_guard(tmp_path):
    paths = [write_video(tmp_path / f"{i}.mp4", grey_ramp(5 + i)) for i in range(6)]
    counts: dict[int, int] = {}
    with Guard(timeout_s=60, memory_bytes=MEMORY) as guard:

        def work(i: int) -> None:
            counts[i] = guard.inspect(paths[i], name=str(i), limits=Limits()).facts.num_frames

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == {i: 5 + i for i in range(6)}
