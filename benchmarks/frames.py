"""CPU seconds for 256, 1024 and 2048 training frames of a ten-minute video: our shards beside source readers.

The video is made of the demo's excerpts, one after another, at 854×480. Each reader gives the same frames
(spread evenly over the video) as uint8 RGB of the model's size, scaling included, in one thread of a process
of its own. Ours reads JPEGs that were made once, at the rate that gives 2048 of them: another artefact, whose
cost is told.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness import Report, Row, Spread, arguments, finish, interleaved
from benchmarks.loading.frame_readers import OURS, READERS, VILA
from benchmarks.loading.long_video import (
    SHARDS,
    VIDEOS,
    Source,
    describe,
    join_excerpts,
    write_strip,
)
from benchmarks.loading.read_once import Cost, missing, read_once

log = logging.getLogger(__name__)
COUNTS = (256, 1024, 2048)
TRUTH = "PyAV, linear"  # decodes every frame, so it cannot miss one
RANKS = 8
MINUTES = 10
SAME_WITHIN = 2.5  # grey levels of the means of fields: other frames of a moving picture differ by more


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--repeats", type=int, help="of every reader with every number (default: 3, quick: 1)"
    )
    parser.add_argument("--minutes", type=float, help="of video; frames go with them (default: 10, quick: 1)")
    parser.add_argument("--size", type=int, default=384, help="pixels per side of a training frame")
    parser.add_argument("--height", type=int, default=480, help="of the video; 0: the excerpts as they are")
    parser.add_argument("--video", type=Path, help="another video of about ten minutes")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEGs")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    share = (options.minutes or (1 if options.quick else MINUTES)) / MINUTES
    counts = {count: round(count * share) for count in COUNTS}
    with tempfile.TemporaryDirectory() as folder:
        video = options.video or _make_video(Path(folder), 60 * MINUTES * share, options.height)
        source = describe(video, Path(folder) / "data")
        made_s = write_strip(
            source, source.dataset, count=counts[2048], size=options.size, quality=options.quality
        )
        log.info("made the shard in %.0f CPU seconds", made_s)
        report = compare(source, counts, options.size, options.repeats or (1 if options.quick else 3))
        report.notes += _notes(source, options.size, options.quality, made_s, share)
        finish(report, options.json)


def _make_video(folder: Path, duration_s: float, height: int) -> Path:
    path = folder / "film.mp4"
    join_excerpts(VIDEOS, path, duration_s=duration_s, height=height)
    return path


def compare(source: Source, counts: Mapping[int, int], size: int, repeats: int) -> Report:
    """Measure every reader that is here with every number of frames."""
    report = Report("frames", extra_machine={"threads": 1})
    left_out = {name: why for name in READERS if (why := missing(name))}
    report.notes += [f"left out: {name}: {why}" for name, why in left_out.items()]
    present = [name for name in READERS if name not in left_out]
    for count, number in counts.items():
        schemes = {name: partial(_logged, name, source, number, size) for name in present}
        costs = interleaved(schemes, repeats=repeats)
        truth = np.array(costs[TRUTH][0].fingerprint)
        report.rows += [_row(count, number, name, costs[name], truth) for name in present]
        report.summary |= _ratios(
            count, {name: Spread.of([one.cpu_s for one in costs[name]]) for name in present}
        )
    report.summary |= shares(source, counts[2048])
    return report


def _logged(name: str, source: Source, number: int, size: int) -> Cost:
    cost = read_once(name, source, number, size)
    log.info("%s: %d frames in %.2f CPU seconds", name, number, cost.cpu_s)
    return cost


def _row(count: int, number: int, name: str, costs: Sequence[Cost], truth: np.ndarray) -> Row:
    difference = float(np.abs(np.array(costs[0].fingerprint) - truth).mean())
    if difference > SAME_WITHIN and name != OURS:  # fewer frames are taken from the shard's, not the video's
        log.warning("%s gives other frames: their fields differ by %.1f grey levels", name, difference)
    cpu = Spread.of([cost.cpu_s for cost in costs])
    return {
        "frames per 10 min": count,
        "frames read": number,
        "reader": name,
        **cpu.row("cpu s", digits=3),
        "cpu ms per frame": round(1000 * cpu.median / number, 3),
        "wall s": round(Spread.of([cost.wall_s for cost in costs]).median, 2),
        "peak rss MiB": round(max(cost.peak_rss_mib for cost in costs)),
        "difference from linear": round(difference, 3),
    }


def _ratios(count: int, cpu: Mapping[str, Spread]) -> dict[str, float]:
    """Return ours ÷ theirs; the best source reader is the cheapest of all but VILA's."""
    ours = cpu[OURS].median
    best = min(spread.median for name, spread in cpu.items() if name not in (OURS, VILA))
    ratios = {f"cpu_vs_best_source_reader_{count}": ours / best}
    if VILA in cpu:
        ratios[f"cpu_vs_vila_{count}"] = ours / cpu[VILA].median
    return ratios


def shares(source: Source, num_frames: int) -> dict[str, float]:
    """Return which share of a sample's bytes a rank of eight asks for, record and offsets included."""
    from longvila.data import open_reader

    def bytes_of(frames: np.ndarray) -> int:
        reader = open_reader(f"{source.dataset}/shards/{SHARDS}")
        reader.sample(0)
        reader.frames(0, frames)
        return reader.bytes_read

    every = np.arange(num_frames)
    whole = bytes_of(every)
    parts = [bytes_of(part) / whole for part in np.array_split(every, RANKS)]
    return {"bytes_share_sp8": float(np.mean(parts)), "bytes_share_sp8_most": max(parts)}


def _notes(source: Source, size: int, quality: int, made_s: float, share: float) -> list[str]:
    part = "" if share == 1.0 else f": {share:.0%} of ten minutes, and so of the frames"
    return [
        f"the video: {source.width}×{source.height}, {source.num_frames} frames at {source.fps:.4g} "
        f"frames/s, {source.num_key_frames} key frames{part}",
        f"all give uint8 RGB {size}×{size}, into a buffer that is there before, imports not counted; the "
        "video lies in the page cache",
        f"ours reads another artefact: JPEGs of quality {quality} made once from the same video in "
        f"{made_s:.1f} CPU seconds (decoding, scaling and encoding); 2048 frames of ten minutes are 3.4 "
        "frames/s, and 1024 and 256 are taken from the same shard (the nearest of its frames)",
        "difference from linear: mean difference of 8 × 8 fields' means, in grey levels, of 32 frames",
        f"bytes_share_sp8: bytes that a rank asks for ÷ those of one process, mean of {RANKS} ranks with "
        "neighbouring frames; _most: of the rank with the most bytes, whose scenes are the busiest",
    ]


if __name__ == "__main__":
    main()
