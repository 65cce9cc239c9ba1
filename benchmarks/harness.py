"""What every benchmark needs: options, interleaved repeats, medians with spread, a table, one JSON file.

Machines are noisy, so peers run side by side in one process tree, turn by turn, and what is claimed is the
ratio of medians. The spread stands in the rows.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple, TypeVar

import torch

Result = TypeVar("Result")
Row = dict[str, Any]


class Spread(NamedTuple):
    """A median and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise repeated measurements."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, _, high = quantiles(values, n=4, method="inclusive")
        return cls(median(values), low, high)

    def row(self, name: str, digits: int = 4) -> Row:
        """Return the three numbers as columns ``name``, ``name_q1``, ``name_q3``."""
        values = {name: self.median, f"{name}_q1": self.low, f"{name}_q3": self.high}
        return {key: round(value, digits) for key, value in values.items()}


@dataclass
class Report:
    """One run of one benchmark: rows for people to read, and a summary of few numbers for machines."""

    name: str
    rows: list[Row] = field(default_factory=list)
    summary: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    extra_machine: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON file holds."""
        return {
            "name": self.name,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine() | self.extra_machine,
            "command": shlex.join(["python", "-m", f"benchmarks.{self.name}", *sys.argv[1:]]),
            "rows": self.rows,
            "summary": self.summary,
            "notes": self.notes,
        }


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have; ``description`` is a module's docstring."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats: within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as well")
    return parser


def interleaved(
    schemes: Mapping[str, Callable[[], Result]], *, repeats: int, seed: int = 0
) -> dict[str, list[Result]]:
    """Run every scheme ``repeats`` times, in a new order in each round, and return what each gave."""
    shuffler = random.Random(seed)
    results: dict[str, list[Result]] = {name: [] for name in schemes}
    for _ in range(repeats):
        order = list(schemes)
        shuffler.shuffle(order)
        for name in order:
            results[name].append(schemes[name]())
    return results


def machine() -> dict[str, Any]:
    """Return what a reader has to know of the machine."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "gpus": gpus,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def finish(report: Report, path: Path | None) -> None:
    """Print the table, and write the JSON file if one is asked for."""
    print(table(report.rows))
    for note in report.notes:
        print(f"note: {note}")
    print("\n".join(f"{key} = {value:.4g}" for key, value in report.summary.items()))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".part")
        beside.write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
        beside.replace(path)


def table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table, which is as readable on a terminal as in a report."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
