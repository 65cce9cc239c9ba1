"""Pictures of results, as PNG or SVG bytes. No global state: figures are made without pyplot.

All pictures have a white ground, so that they read the same on a light and on a dark page.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from longvila.errors import InputError
from longvila.evaluation.results import FramesCurveResult, LossCurve, NeedleResult, QaResult
from longvila.evaluation.statistics import Share

Format = Literal["png", "svg"]
NEEDLE_COLOURS = ("#F0496E", "#EBB839", "#9ad5b3")  # as published: red is missed, green is found
LINE_COLOURS = ("#2f5d8a", "#c2571a", "#3f8f6b", "#8a4f9e", "#b08a00", "#55606b", "#b3415c")
INK = "#22272e"
FAINT = "#d8dde3"


def needle_heat_map(
    result: NeedleResult, *, title: str = "", trained_frames: int | None = None, fmt: Format = "png"
) -> bytes:
    """Draw the grid: frames on x, depth on y, from red (missed) to green (found).

    ``trained_frames`` draws a line after the longest video that the short stages were trained on.
    """
    frames = sorted({cell.frames for cell in result.cells})
    depths = sorted({cell.depth for cell in result.cells if cell.depth is not None})
    accuracy = {(cell.frames, cell.depth): cell.generated.value for cell in result.cells}
    grid = np.array([[accuracy.get((n, depth), math.nan) for n in frames] for depth in depths])
    figure, axes = _figure(max(4.4, 1.3 + 0.62 * len(frames)), 1.2 + 0.42 * len(depths))
    colours = LinearSegmentedColormap.from_list("needle", NEEDLE_COLOURS)
    axes.pcolormesh(grid, cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
    _write_cells(axes, grid)
    axes.set_xticks(np.arange(len(frames)) + 0.5, labels=[str(n) for n in frames])
    axes.set_yticks(np.arange(len(depths)) + 0.5, labels=[f"{depth:.0%}" for depth in depths])
    axes.invert_yaxis()
    axes.set(xlabel="frames", ylabel="depth of the needle")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _mark_trained_length(axes, frames, trained_frames)
    return _render(figure, axes, title, fmt)


def frames_curve(
    results: Sequence[tuple[str, FramesCurveResult]], *, title: str = "", fmt: Format = "png"
) -> bytes:
    """Draw accuracy against sampled frames with Wilson intervals; the prediction for the last is dashed."""
    if not results:
        raise InputError("no frames curve to draw. Give at least one (name, result)")
    figure, axes = _figure(5.6, 3.4)
    for (name, result), colour in zip(results, _colours(len(results)), strict=True):
        sampled = [point.sampled for point in result.points]
        shares = [point.measured for point in result.points]
        axes.errorbar(
            sampled,
            _values(shares),
            yerr=_whiskers(shares),
            color=colour,
            marker="o",
            ms=4,
            lw=1.8,
            capsize=2.5,
            label=name,
        )
    last_name, last = results[-1]
    axes.plot(
        [point.sampled for point in last.points], [point.predicted for point in last.points],
        color=INK, lw=1.2, ls=(0, (4, 3)), label=f"prediction for {last_name}",
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    ticks = sorted({point.sampled for _, result in results for point in result.points})
    axes.set_xticks(ticks, labels=[str(n) for n in ticks])
    axes.minorticks_off()
    axes.set(xlabel=f"frames sampled from a video of {last.video_frames}", ylabel="accuracy")
    _percent_axis(axes)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return _render(figure, axes, title, fmt)


def losses(curves: Sequence[LossCurve], *, title: str = "", fmt: Format = "png") -> bytes:
    """Draw the loss of each stage in a panel of its own, on one scale."""
    if not curves:
        raise InputError("no loss to draw. Give at least one stage's curve")
    figure = Figure(figsize=(max(3.0, 2.1 * len(curves)), 2.6), layout="constrained", facecolor="white")
    panels = np.atleast_1d(figure.subplots(1, len(curves), sharey=True))
    for axes, curve, colour in zip(panels, curves, _colours(len(curves)), strict=True):
        _style(axes)
        axes.plot(curve.steps, curve.losses, color=colour, lw=0.7, alpha=0.35)
        axes.plot(curve.steps, _smooth(curve.losses), color=colour, lw=1.8)
        axes.set_title(curve.stage, fontsize=9, color=INK)
        axes.set_xlabel("step", fontsize=8)
    panels[0].set_ylabel("loss per scored token", fontsize=8)
    panels[0].set_ylim(bottom=0)
    return _render(figure, None, title, fmt)


def accuracy_by_kind(result: QaResult, *, title: str = "", fmt: Format = "png") -> bytes:
    """Draw held-out accuracy by kind, with intervals, beside its two baselines."""
    scores = (*result.kinds, result.overall)
    figure, axes = _figure(6.4, 1.1 + 0.58 * len(scores))
    series = (
        ("model", LINE_COLOURS[0], [score.model for score in scores]),
        ("same model, frames left out", LINE_COLOURS[1], [score.text_only for score in scores]),
        ("commonest training answer", "#9aa3ad", [score.majority for score in scores]),
    )
    place = np.arange(len(scores))[::-1].astype(float)
    for i, (name, colour, shares) in enumerate(series):
        axes.barh(place + 0.26 * (1 - i), _values(shares), height=0.24, color=colour, label=name)
        axes.errorbar(
            _values(shares),
            place + 0.26 * (1 - i),
            xerr=_whiskers(shares),
            fmt="none",
            ecolor=INK,
            lw=0.9,
            capsize=2,
        )
    axes.set_yticks(place, labels=[f"{score.kind}  (n={score.model.total})" for score in scores])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="x", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_ylim(-0.6, len(scores) - 0.4)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    return _render(figure, axes, title, fmt)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=8, colors=INK, color=FAINT)
    axes.xaxis.label.set(size=9, color=INK)
    axes.yaxis.label.set(size=9, color=INK)


def _render(figure: Figure, axes: Axes | None, title: str, fmt: Format) -> bytes:
    if title and axes is not None:
        axes.set_title(title, fontsize=10, color=INK, loc="left")
    elif title:
        figure.suptitle(title, fontsize=10, color=INK)
    FigureCanvasAgg(figure)
    out = io.BytesIO()
    metadata = {"Date": None} if fmt == "svg" else {"Software": None}
    figure.savefig(out, format=fmt, dpi=180, metadata=metadata)
    return out.getvalue()


def _write_cells(axes: Axes, grid: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(grid):
        if not math.isnan(value):
            axes.text(
                column + 0.5, row + 0.5, f"{value * 100:.0f}", ha="center", va="center", fontsize=8, color=INK
            )


def _mark_trained_length(axes: Axes, frames: Sequence[int], trained_frames: int | None) -> None:
    if trained_frames is None:
        return
    inside = sum(n <= trained_frames for n in frames)
    if 0 < inside < len(frames):
        axes.axvline(inside, color=INK, lw=1.4, ls=(0, (3, 2)))


def _percent_axis(axes: Axes) -> None:
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)


def _values(shares: Sequence[Share]) -> np.ndarray:
    return np.array([share.value if share.total else 0.0 for share in shares])


def _whiskers(shares: Sequence[Share]) -> np.ndarray:
    """Distances from each share down and up to the ends of its interval, [2, n]."""
    values = _values(shares)
    low = np.array([share.interval.low if share.total else 0.0 for share in shares])
    high = np.array([share.interval.high if share.total else 0.0 for share in shares])
    return np.stack([np.maximum(values - low, 0), np.maximum(high - values, 0)])


def _smooth(values: Sequence[float]) -> np.ndarray:
    """A centred running mean over about a tenth of the curve."""
    array = np.asarray(values, dtype=np.float64)
    width = max(1, len(array) // 10)
    weights = np.convolve(np.ones_like(array), np.ones(width), mode="same")
    return np.convolve(array, np.ones(width), mode="same") / weights


def _colours(count: int) -> list[str]:
    return [LINE_COLOURS[i % len(LINE_COLOURS)] for i in range(count)]
