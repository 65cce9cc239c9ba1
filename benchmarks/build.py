"""The whole build of a data set: hours of video per hour, CPU seconds per hour of video, and who takes them.

The same recipe is built twice on the same videos: by the flow, as a user runs it (its own Prefect server
included), and by plain calls of the library. What the flow takes more, in CPU seconds, is orchestration: to
start (a flow that finds nothing to do), which is paid once, and the rest. The shares of the stages are from
the flow's own account, which every build leaves beside its manifests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.harness import Report, arguments, finish, interleaved
from longvila.config import load_sources
from longvila.config.sources import source_list_path
from longvila.media import probe
from longvila.storage import StepStats

HOUR_S = 3600.0
RECIPE = """name: bench
data:
  sources: {sources}
  batch_size: {batch_size}
  runner: {{kind: threads, workers: 1}}
  dedup: {{near: false}}
"""


class Run(NamedTuple):
    """One build."""

    wall_s: float
    cpu_s: float  # of the process and all that it started
    stages: dict[str, float]  # CPU seconds
    workspace: Path


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--copies", type=int, help="of the ten demo films, 9.8 minutes (default: 8, quick: 1)"
    )
    parser.add_argument("--films", type=int, help="how many of the ten (default: all, quick: 2)")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args(argv)
    films = _films()[: options.films or (2 if options.quick else None)]
    copies = options.copies or (1 if options.quick else 8)
    with tempfile.TemporaryDirectory(prefix="bench-build-") as folder:
        finish(compare(Path(folder), films, copies, options.repeats), options.json)


def compare(folder: Path, films: Sequence[Path], copies: int, repeats: int) -> Report:
    """Build by the flow and directly."""
    recipe = _write_recipe(folder, films, copies)
    hours = copies * sum(probe(film).duration_s for film in films) / HOUR_S
    number = iter(range(1000))

    def run(command: Sequence[str]) -> Run:
        workspace = folder / f"ws-{next(number)}"
        return _run([*command, str(workspace)], workspace)

    longvila = str(Path(sys.executable).parent / "longvila")
    ways = {
        "flow": [longvila, "flow", "run", "build-dataset", "--recipe", str(recipe), "--workspace"],
        "library": [sys.executable, "-m", "benchmarks.dataset.direct", str(recipe)],
    }
    runs = interleaved(
        {name: lambda command=command: run(command) for name, command in ways.items()}, repeats=repeats
    )
    refresh = [longvila, "flow", "run", "refresh", "--recipe", str(recipe), "--workspace"]
    start = [_run([*refresh, str(done.workspace)], done.workspace) for done in runs["flow"]]
    return _report({**runs, "start": start}, hours, num_videos=copies * len(films))


def _report(runs: dict[str, list[Run]], hours: float, *, num_videos: int) -> Report:
    report = Report("build")
    flow, library, start = (median(run.cpu_s for run in runs[name]) for name in ("flow", "library", "start"))
    for name, found in runs.items():
        wall_s, cpu_s = median(run.wall_s for run in found), median(run.cpu_s for run in found)
        report.rows.append(
            {
                "what": name,
                "cpu_s": round(cpu_s, 1),
                "cpu_s_per_video_hour": round(cpu_s / hours, 1),
                "share": round(cpu_s / flow, 4),
                "wall_s": round(wall_s, 1),
            }
        )
    first = runs["flow"][0]
    for stage, cpu_s in sorted(first.stages.items(), key=lambda item: -item[1]):
        report.rows.append(
            {
                "what": f"  {stage}",
                "cpu_s": round(cpu_s, 1),
                "cpu_s_per_video_hour": round(cpu_s / hours, 1),
                "share": round(cpu_s / first.cpu_s, 4),
                "wall_s": None,
            }
        )
    report.summary = {
        "orchestration_share": (flow - library - start) / flow,
        "orchestration_share_with_start": (flow - library) / flow,
        "start_cpu_s": start,
        "video_hours_per_hour": hours / (median(run.wall_s for run in runs["flow"]) / HOUR_S),
        "cpu_s_per_video_hour": flow / hours,
        "video_hours": hours,
    }
    report.notes.append(
        f"{num_videos} videos, {hours:.2f} hours; one batch at a time, measured captions and questions, "
        "frames at 2 per second and 384 pixels; the flow's Prefect server is in its CPU seconds"
    )
    report.notes.append(
        "start: a flow that finds nothing to do, with its server; orchestration_share is without it. Videos "
        "are checked in a process of their own, whose seconds are in no stage: they count when it ends"
    )
    return report


def _run(command: Sequence[str], workspace: Path) -> Run:
    before, started = _children_s(), time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return Run(time.perf_counter() - started, _children_s() - before, _stages(workspace), workspace)


def _children_s() -> float:
    """CPU seconds of all children that have ended, and of theirs that they waited for."""
    return sum(os.times()[2:4])


def _stages(workspace: Path) -> dict[str, float]:
    cpu_s: dict[str, float] = defaultdict(float)
    for path in (workspace / "manifests").rglob("*.stats.json"):
        stats = StepStats.model_validate_json(path.read_bytes())
        cpu_s[stats.step] += stats.cpu_s
    return dict(cpu_s)


def _films() -> list[Path]:
    folder = source_list_path("demo").parent
    paths = [folder / source.url for source in load_sources("demo")]
    return [path for path in paths if path.is_file() and path.name != "11-cut-short.mp4"]


def _write_recipe(folder: Path, films: Sequence[Path], copies: int) -> Path:
    """Write the videos, each a file of its own content, their list, and the recipe."""
    lines = ["sources:"]
    for copy in range(copies):
        for film in films:
            path = folder / f"{film.stem}-{copy}.mp4"
            path.write_bytes(film.read_bytes() + b"\0\0\0\x0cfree" + copy.to_bytes(4, "big"))
            lines.append(f"  - {{url: {path}, split: train}}")
    (folder / "sources.yaml").write_text("\n".join(lines) + "\n")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(sources=folder / "sources.yaml", batch_size=16))
    return recipe


if __name__ == "__main__":
    main()
