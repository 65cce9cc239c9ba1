"""``python -m benchmarks.loading.read_once JSON``: read frames in one way, in a process of its own.

Imports and the buffer for the frames are made before the clock starts; the file lies in the page cache.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import import_module, util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.loading.frame_readers import READERS
from benchmarks.loading.long_video import Source


class Cost(NamedTuple):
    """What one reading took, and a fingerprint of the frames: means of 8 × 8 fields, of 32 of them."""

    cpu_s: float
    wall_s: float
    peak_rss_mib: float
    fingerprint: list[float]


def read_once(reader: str, source: Source, count: int, size: int) -> Cost:
    """Run one reader in a new process of one thread."""
    given = {"reader": reader, "source": source._asdict(), "count": count, "size": size}
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.loading.read_once", json.dumps(given, default=str)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": _library_path()},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise RuntimeError(f"{reader} failed:\n{answer.stderr[-2000:]}")
    return Cost(**json.loads(answer.stdout.splitlines()[-1]))


def missing(reader: str) -> str:
    """Say why a reader cannot run here; empty when it can."""
    needs = READERS[reader][1]
    for package in {name.partition(".")[0] for name in needs}:
        if util.find_spec(package) is None:
            return f"{package} is not installed"
    command = [sys.executable, "-c", f"import {', '.join(needs)}"]
    env = {**os.environ, "LD_LIBRARY_PATH": _library_path()}
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return "" if found.returncode == 0 else f"it does not load: {_last_line(found.stderr)}"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _library_path() -> str:
    """Where torchcodec finds FFmpeg: the system's, and what PyAV carries, linked to by its plain names."""
    spec = util.find_spec("av")
    before = os.environ.get("LD_LIBRARY_PATH", "")
    if spec is None or spec.origin is None:
        return before
    carried = Path(spec.origin).parent.parent / "av.libs"
    links = Path(tempfile.gettempdir()) / f"longvila-bench-ffmpeg-{os.getuid()}"
    if carried.is_dir() and not links.exists():
        part = Path(tempfile.mkdtemp(dir=links.parent))
        for library in carried.iterdir():
            name, _, version = library.name.partition(".so.")
            plain = f"{name.rpartition('-')[0]}.so.{version.partition('.')[0]}"
            for alias in {library.name, plain}:
                (part / alias).symlink_to(library)
        shutil.rmtree(links, ignore_errors=True)
        part.rename(links)
    return ":".join(filter(None, (before, str(links))))


def main(given: dict[str, Any]) -> None:
    """Read once and print the cost as JSON."""
    source = Source(**given["source"])
    source = source._replace(video=Path(source.video), dataset=Path(source.dataset))
    reader, needs = READERS[given["reader"]]
    for module in needs:
        import_module(module)
    frames_NHW3 = np.zeros((given["count"], given["size"], given["size"], 3), dtype=np.uint8)
    frames_NHW3 += 1  # every page is there
    source.video.read_bytes()
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    reader(source, frames_NHW3)
    after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - wall
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    chosen = frames_NHW3[np.linspace(0, given["count"] - 1, 32).round().astype(int)].astype(np.float32)
    side = given["size"] // 8
    fields = chosen[:, : 8 * side, : 8 * side].reshape(32, 8, side, 8, side, 3).mean(axis=(2, 4, 5))
    print(json.dumps(Cost(cpu_s, wall, after.ru_maxrss / 1024, fields.ravel().round(2).tolist())._asdict()))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
