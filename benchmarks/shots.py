"""Shot boundaries: how fast and how right, ours beside TransNetV2 and PySceneDetect.

Composed videos: pieces of real shots with cuts, dissolves of 0.2 to 1.5 s and fades of 0.4 to 2 s through
black or white between them, so the truth is exact. Real videos: excerpts of a film whose boundaries were
found by eye; with --videos also the other videos that benchmarks/video/truth.py knows by name. Every system
decodes each file itself, with one thread; what counts is processor time. A found boundary is right when its
interval of frames overlaps a true one's, each used once; a cut may be off by one frame.

    python -m benchmarks.shots --json benchmarks/results/shots.json
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import torch

from benchmarks.harness import Report, Spread, arguments, finish
from benchmarks.video import detectors
from benchmarks.video.compose import Plan, Truth, compose, plan
from benchmarks.video.matching import Counts, Interval, count, matched
from benchmarks.video.truth import DEMO, DEMO_NAMES, QUICK, known_videos, pieces_of, truth_of
from longvila.curation.shot_detection.network import shared_network
from longvila.media.probe import probe

SYSTEMS: dict[str, Callable[[Path], list[Interval]]] = {
    "ours": detectors.ours,
    "transnetv2": detectors.transnetv2,
    "pyscenedetect adaptive": detectors.adaptive,
    "pyscenedetect content": detectors.content,
}
_SIZE = (360, 640)


class Case(NamedTuple):
    """One video with its truth."""

    kind: str  # composed or real
    path: Path
    truths: list[Truth]
    num_frames: int


class Outcome(NamedTuple):
    """What one system did on one case."""

    found: list[Interval]
    cpu_s: float


def main() -> None:
    """Run the benchmark."""
    args = _arguments()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        cases = _cases(Path(folder), args)
        outcomes = _measure(cases, seed=args.seed)
    finish(_report(cases, outcomes, args), args.json)


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--composed", type=int, default=8, help="how many composed videos")
    parser.add_argument("--shots", type=int, default=30, help="shots in each of them")
    parser.add_argument("--seed", type=int, default=2026, help="of what is drawn")
    parser.add_argument("--videos", type=Path, help="a folder with more real videos that the truth knows")
    args = parser.parse_args()
    if args.quick:
        args.composed, args.shots = 1, 10
    return args


def _cases(folder: Path, args: argparse.Namespace) -> list[Case]:
    demo = [DEMO / name for name in DEMO_NAMES]
    pieces = [piece for path in demo for piece in pieces_of(path, probe(path).num_frames)]
    cases = []
    for index in range(args.composed):
        made = plan(pieces, num_shots=args.shots, seed=args.seed + index)
        cases.append(_composed(made, folder / f"composed-{index}.mp4"))
    real = [QUICK] if args.quick else [*demo, *(known_videos(args.videos) if args.videos else [])]
    return cases + [Case("real", path, truth_of(path), probe(path).num_frames) for path in real]


def _composed(made: Plan, path: Path) -> Case:
    truths = compose(made, path, size=_SIZE)
    return Case("composed", path, truths, probe(path).num_frames)


def _measure(cases: list[Case], *, seed: int) -> dict[str, list[Outcome]]:
    shared_network()
    detectors.published_network()
    for find in SYSTEMS.values():  # imports and first calls are not what is measured
        find(QUICK)
    shuffler = random.Random(seed)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in SYSTEMS}
    for case in cases:
        for name in shuffler.sample(list(SYSTEMS), len(SYSTEMS)):
            start_s = time.process_time()
            found = SYSTEMS[name](case.path)
            outcomes[name].append(Outcome(found, time.process_time() - start_s))
    return outcomes


def _report(cases: list[Case], outcomes: dict[str, list[Outcome]], args: argparse.Namespace) -> Report:
    report = Report("shots", extra_machine={"threads": 1})
    for kind in dict.fromkeys(case.kind for case in cases):
        chosen = [i for i, case in enumerate(cases) if case.kind == kind]
        report.rows += [
            _row(kind, name, [cases[i] for i in chosen], [outcomes[name][i] for i in chosen])
            for name in SYSTEMS
        ]
    f1 = {name: _total(cases, outcomes[name]).f1 for name in SYSTEMS}
    report.summary = {
        "f1": f1["ours"],
        "f1_transnetv2": f1["transnetv2"],
        "f1_pyscenedetect": max(f1["pyscenedetect adaptive"], f1["pyscenedetect content"]),
        "fps_vs_transnetv2": _ratio(outcomes, "transnetv2"),
        "fps_vs_pyscenedetect": _ratio(outcomes, "pyscenedetect adaptive"),
    }
    report.notes = [
        f"{args.composed} composed videos of {args.shots} shots, seeds from {args.seed}; pieces and real "
        f"excerpts: {', '.join(DEMO_NAMES)}. Most thresholds of ours were chosen on other excerpts.",
        "fps: source frames per processor second, median and quartiles over the videos; ratios are medians "
        "over the videos of their processor time ÷ ours. fps_vs_pyscenedetect is against adaptive.",
    ]
    return report


def _row(kind: str, name: str, cases: list[Case], outcomes: list[Outcome]) -> dict[str, object]:
    total = _total(cases, outcomes)
    fps = Spread.of([case.num_frames / out.cpu_s for case, out in zip(cases, outcomes, strict=True)])
    row: dict[str, object] = {"videos": kind, "system": name, "boundaries": total.true, "found": total.found}
    row |= {"precision": total.precision, "recall": total.recall, "f1": total.f1}
    for transition in ("cut", "dissolve", "fade"):
        row[f"recall_{transition}"] = _recall(cases, outcomes, transition)
    return row | fps.row("fps", digits=1)


def _total(cases: list[Case], outcomes: list[Outcome]) -> Counts:
    total = Counts(0, 0, 0)
    for case, outcome in zip(cases, outcomes, strict=True):
        total += count(case.truths, outcome.found)
    return total


def _recall(cases: list[Case], outcomes: list[Outcome], transition: str) -> float | None:
    answers = [
        index is not None
        for case, outcome in zip(cases, outcomes, strict=True)
        for truth, index in zip(case.truths, matched(case.truths, outcome.found), strict=True)
        if truth.kind == transition
    ]
    return sum(answers) / len(answers) if answers else None


def _ratio(outcomes: dict[str, list[Outcome]], peer: str) -> float:
    pairs = zip(outcomes[peer], outcomes["ours"], strict=True)
    return Spread.of([theirs.cpu_s / own.cpu_s for theirs, own in pairs]).median


if __name__ == "__main__":
    main()
