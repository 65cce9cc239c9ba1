"""The page as HTML: pictures drawn, templates filled, everything put inside."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from longvila.errors import InputError
from longvila.evaluation import plots
from longvila.evaluation.results import KindScore
from longvila.evaluation.statistics import Share
from longvila.report.content import Evaluated, Picture, ReportData
from longvila.report.verdicts import judge

SIGNATURES = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"<?xml": "image/svg+xml",
    b"<svg": "image/svg+xml",
    b"RIFF": "image/webp",
}


class Panel(NamedTuple):
    """One evaluation's needle grid as it is shown."""

    evaluated: Evaluated
    heat_map: Picture


def render_report(data: ReportData) -> str:
    """Return the page as HTML. Every text is escaped, whatever it came from."""
    environment = Environment(
        loader=PackageLoader("longvila.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    panels = _needle_panels(data)
    pair = [
        p for name in (data.before, data.after) for p in panels if name and p.evaluated.result.name == name
    ]
    after = data.evaluation(data.after)
    return environment.get_template("report.html").render(
        data=data,
        verdicts=judge(data),
        pair=pair,
        others=[panel for panel in panels if panel not in pair],
        loss_plot=_loss_plot(data),
        curve_plot=_curve_plot(data),
        qa=after.result.qa if after else None,
        qa_plot=_qa_plot(after),
        compared=[item for item in data.evaluations if item.result.qa or item.result.needle],
    )


def data_uri(picture: Picture) -> str:
    """Return an image as a data URI; raise InputError when the bytes are no image that browsers show."""
    for signature, kind in SIGNATURES.items():
        if picture.data.startswith(signature):
            return f"data:{kind};base64,{base64.b64encode(picture.data).decode()}"
    raise InputError(
        f"the picture {picture.alt!r} starts with {picture.data[:8]!r}, which is no PNG, JPEG, WebP or SVG. "
        "Encode it before it is given to the report"
    )


def _needle_panels(data: ReportData) -> list[Panel]:
    panels = []
    for item in data.evaluations:
        if item.result.needle:
            image = plots.needle_heat_map(item.result.needle, trained_frames=item.trained_frames)
            panels.append(
                Panel(item, Picture(data=image, alt=f"needle grid of {item.title}: frames × depth"))
            )
    return panels


def _loss_plot(data: ReportData) -> Picture | None:
    curves = [stage.losses for stage in data.stages if stage.losses and stage.losses.steps]
    return Picture(data=plots.losses(curves), alt="loss of each stage by step") if curves else None


def _curve_plot(data: ReportData) -> Picture | None:
    curves = [(item.title, item.result.frames_curve) for item in _compared(data) if item.result.frames_curve]
    if not curves:
        return None
    return Picture(
        data=plots.frames_curve(curves), alt="accuracy against sampled frames, with the prediction"
    )


def _compared(data: ReportData) -> list[Evaluated]:
    """Before, the controls, after: few enough to tell the lines apart, and the final model last.

    All evaluations where before and after are not named.
    """
    before, after = data.evaluation(data.before), data.evaluation(data.after)
    if before is None or after is None:
        return list(data.evaluations)
    controls = [item for item in data.evaluations if item.role == "control" and item not in (before, after)]
    return [before, *controls, after]


def _qa_plot(after: Evaluated | None) -> Picture | None:
    if after is None or after.result.qa is None:
        return None
    image = plots.accuracy_by_kind(after.result.qa)
    return Picture(data=image, alt="held-out accuracy by kind of question, with the baselines")


def _percent(share: Share) -> str:
    return f"{share.value:.0%}" if share.total else "–"


def _bounds(share: Share) -> str:
    return f"{share.interval.low:.0%} – {share.interval.high:.0%}"


def _gain(score: KindScore) -> str:
    gain = score.gain
    text = f"{gain.value * 100:+.0f} [{gain.interval.low * 100:+.0f}, {gain.interval.high * 100:+.0f}]"
    return text.replace("-", "−")


def _duration(seconds: float) -> str:
    """Seconds as a person says them: 0.4 s, 41 s, 3 min 20 s, 1 h 02 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _clock(seconds: float) -> str:
    """A place in a video: 1:04.5."""
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _size(size_bytes: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def _count(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _mean_accuracy(panel: Panel) -> str:
    needle = panel.evaluated.result.needle
    assert needle is not None
    right: Sequence[int] = [row.generated.right for row in needle.rows]
    total = sum(row.generated.total for row in needle.rows)
    return f"{sum(right) / total:.0%}" if total else "–"


FILTERS: dict[str, Callable[..., str]] = {
    "data_uri": data_uri,
    "percent": _percent,
    "bounds": _bounds,
    "gain": _gain,
    "duration": _duration,
    "clock": _clock,
    "size": _size,
    "count": _count,
    "mean_accuracy": _mean_accuracy,
}
