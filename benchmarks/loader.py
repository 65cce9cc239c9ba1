"""Samples per CPU second, and the first sample after a resume: our loader beside webdataset and Energon.

All go through the same tars, shuffled, in one process without workers of their own, and decode every frame
with the same decoder. Then each is killed (SIGKILL) in the middle of an epoch and started again from its last
checkpoint: what is lost and what comes twice is counted against a run that was not killed.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.harness import Report, Row, Spread, arguments, finish, interleaved
from benchmarks.loading.load_once import Pass, Task, load_once, missing
from benchmarks.loading.loaders import ENERGON, LOADERS, OURS, WEBDATASET
from benchmarks.loading.long_video import VIDEOS
from benchmarks.loading.samples import Shape, write_windows

log = logging.getLogger(__name__)
FULL = Shape(num_samples=400, num_frames=32, size=224, shard_bytes=24 * 2**20)
QUICK = Shape(num_samples=64, num_frames=32, size=224, shard_bytes=4 * 2**20)
SP_SIZE = 8


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, help="of every loader (default: 5, quick: 1)")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    shape = QUICK if options.quick else FULL
    videos = sorted(VIDEOS.glob("0*.mp4"))[: 2 if options.quick else 4]
    with tempfile.TemporaryDirectory() as folder:
        ref = write_windows(Path(folder), videos, shape)
        report = compare(Path(folder), shape, options.repeats or (1 if options.quick else 5))
        size = sum(shard.size_bytes for shard in ref.shards)
        report.notes += _notes(shape, size, len(ref.shards))
        finish(report, options.json)


def compare(folder: Path, shape: Shape, repeats: int) -> Report:
    """Measure every loader that is here."""
    report = Report("loader", extra_machine={"processes": 1})
    left_out = {name: why for name in LOADERS if (why := missing(name))}
    report.notes += [f"left out: {name}: {why}" for name, why in left_out.items()]
    task = Task(OURS, str(folder), shape, shape.num_samples)
    load_once(task)  # lengths are measured once for all runs, as in training
    schemes = {name: partial(_passed, task._replace(loader=name)) for name in LOADERS if name not in left_out}
    schemes[f"ours, a rank of sp {SP_SIZE}"] = partial(_passed, task._replace(sp_size=SP_SIZE))
    passes = interleaved(schemes, repeats=repeats)
    rows = {name: _row(name, some) for name, some in passes.items()}
    for name in LOADERS:
        if name in passes:
            rows[name] |= resumed(task._replace(loader=name), folder, passes[name][0].keys, repeats)
            log.info("%s", rows[name])
    report.rows = list(rows.values())
    report.summary = _summarise(rows)
    return report


def _passed(task: Task) -> Pass:
    found = load_once(task)
    assert found is not None
    log.info("%s: %d samples in %.2f CPU seconds", task.loader, len(found.keys), found.cpu_s)
    return found


def _row(name: str, passes: Sequence[Pass]) -> Row:
    rate = Spread.of([(len(one.keys) - 1) / (one.cpu_s - one.first_cpu_s) for one in passes])
    return {
        "loader": name,
        **rate.row("samples per cpu s", digits=2),
        "samples per s": round(
            median((len(one.keys) - 1) / (one.wall_s - one.first_wall_s) for one in passes), 2
        ),
        "first sample cpu s": round(median(one.first_cpu_s for one in passes), 3),
    }


def resumed(task: Task, folder: Path, whole: Sequence[str], repeats: int) -> Row:
    """Kill a loader past the middle of an epoch, start it again, and compare with one that was not killed."""
    state, keys = folder / f"{task.loader}.state", folder / f"{task.loader}.keys"
    kill_at = int(0.77 * task.num_samples) + 3  # between two checkpoints
    every = task.checkpoint_every
    doomed = task._replace(checkpoint=str(state), log=str(keys), kill_at=kill_at)
    if load_once(doomed) is not None:
        raise RuntimeError(f"{task.loader} was to be killed at sample {kill_at}, and was not")
    kept = keys.read_text().split()[: kill_at // every * every]  # what came after the checkpoint is forgotten
    saved = state.read_bytes()
    again: list[Pass] = []
    for _ in range(repeats):
        state.write_bytes(saved)
        rest = load_once(task._replace(checkpoint=str(state), num_samples=task.num_samples - len(kept)))
        assert rest is not None
        again.append(rest)
    seen, wanted = Counter(kept + again[0].keys), Counter(whole)
    return {
        "killed at": kill_at,
        "lost": sum((wanted - seen).values()),
        "repeated": sum((seen - wanted).values()),
        "same order": kept + again[0].keys == list(whole),
        **Spread.of([one.first_cpu_s for one in again]).row("first after resume cpu s", digits=3),
        "first after resume s": round(median(one.first_wall_s for one in again), 3),
    }


def _summarise(rows: dict[str, Row]) -> dict[str, float]:
    ours = rows[OURS]
    summary: dict[str, float] = {}
    for name in (WEBDATASET, ENERGON):
        if name not in rows:
            continue
        theirs, first = rows[name], "first after resume cpu s"
        summary[f"samples_vs_{name}"] = ours["samples per cpu s"] / theirs["samples per cpu s"]
        summary[f"samples_sp{SP_SIZE}_vs_{name}"] = (
            rows[f"ours, a rank of sp {SP_SIZE}"]["samples per cpu s"] / theirs["samples per cpu s"]
        )
        summary[f"first_after_resume_vs_{name}"] = ours[first] / theirs[first]
        summary[f"resume_lost_{name}"] = theirs["lost"]
        summary[f"resume_repeated_{name}"] = theirs["repeated"]
    return summary | {"resume_lost": ours["lost"], "resume_repeated": ours["repeated"]}


def _notes(shape: Shape, size_bytes: int, num_shards: int) -> list[str]:
    return [
        f"{shape.num_samples} samples of {shape.num_frames} frames, {shape.size}×{shape.size}, "
        f"{size_bytes / 2**20:.0f} MiB in {num_shards} tars, in the page cache",
        "samples per s: of one epoch in one process, from the first sample on. Ours decodes in one thread of "
        "it, and also encodes text, packs and makes tensors; lengths were measured before, as in training",
        f"ours, a rank of sp {SP_SIZE}: the same samples, of which the rank decodes its own frames; the "
        "others give every rank whole samples",
        "first after resume: from making the loader to the first new sample. webdataset keeps no place: it "
        "is started with the same seed, and reads (without decoding) and discards up to there",
        "killed by SIGKILL between two checkpoints (every 10 samples); lost and repeated are counted from "
        "the checkpoint on against a run that was not killed",
        "mosaicml-streaming is left out: it imports torchvision, which has no build that loads beside the "
        "CPU torch of this project",
    ]


if __name__ == "__main__":
    main()
